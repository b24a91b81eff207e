"""`protoflow dlq` on every broker that keeps dead letters."""

from __future__ import annotations

import json
import stat
import time
import uuid
from typing import Any

import pytest

from tests.brokers import url_or_skip
from tests.cli.conftest import Project

_FAILING = {"orderId": "A-1", "cents": 0, "email": "ann@example.org"}


def _dead(shop: Project) -> list[dict[str, Any]]:
    done = shop("dlq", "list", "--json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = done.json()
    return found


def _fail(shop: Project, count: int) -> list[str]:
    """Runs the service until so many messages are dead-lettered; their ids in order."""
    running = shop.start("run", "app")
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("1 handler")
        lines = "\n".join(json.dumps(_FAILING | {"orderId": f"A-{n}"}) for n in range(count))
        ids = shop("publish", "OrderPlaced", "-", stdin=lines).lines
        deadline = time.monotonic() + 60
        while len(_dead(shop)) < count:
            assert time.monotonic() < deadline
    finally:
        running.terminate()
        running.communicate(timeout=30)
    return ids


@pytest.fixture(params=["sqlite", "postgresql", "kafka", "rabbitmq", "jetstream"])
def broker(request: pytest.FixtureRequest, shop: Project) -> str:
    """The shop on a broker; each run has a namespace of its own."""
    name = str(request.param)
    if name != "sqlite":
        url = url_or_skip(name)
        shop.use(url)
    shop.environ["PROTOFLOW_NAMESPACE"] = f"dlq-{uuid.uuid4().hex[:8]}"
    return name


@pytest.mark.timeout(300)
def test_dead_letters_are_listed_shown_fixed_and_replayed(broker: str, shop: Project) -> None:
    ids = _fail(shop, 3)
    rows = _dead(shop)
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert {row["error_type"] for row in rows} == {"ValueError"}
    assert {row["handler"] for row in rows} == {"shop.v1.Orders.BillOrder"}

    shown = shop("dlq", "show", ids[0], "--payload", "--json").json()
    assert shown["error"] == "no sum"
    assert shown["payload"] == {"order_id": "A-0", "email": "***"}
    assert "ann@example.org" not in shop("dlq", "show", ids[0], "--payload").out

    assert shop("dlq", "list", "--error", "KeyError", "--json").json() == []
    assert shop("dlq", "list", "--exit-code").code == 1
    assert len(shop("dlq", "list", "--key", "A-1", "--since", "1h", "--json").json()) == 1

    dry = shop("dlq", "replay", "--all", "--dry-run", "--json")
    assert dry.json() == {"matched": 3, "done": 0, "failed": {}}
    assert shop("dlq", "purge", ids[2], "--yes").out == "1 matched, 1 done, 0 failed\n"

    text = (shop.folder / "app.py").read_text()
    shop.write("app.py", text.replace("if not order.cents:", "if False:"))
    replayed = shop("dlq", "replay", "--handler", "shop.v1.Orders.BillOrder", "--yes", "--json")
    assert (replayed.code, replayed.json()) == (0, {"matched": 2, "done": 2, "failed": {}})
    running = shop.start("run", "app")
    try:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
    finally:
        running.terminate()
        running.communicate(timeout=30)
    assert sorted(lines[1:]) == ["billed A-0\n", "billed A-1\n"]
    assert _dead(shop) == []


def test_export_is_private_and_holds_payloads_on_demand(shop: Project) -> None:
    _fail(shop, 1)
    assert shop("dlq", "export", "dead.jsonl").out == "1 dead letter in dead.jsonl\n"
    file = shop.folder / "dead.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "payload" not in json.loads(file.read_text())
    again = shop("dlq", "export", "dead.jsonl")
    assert again.code == 2
    assert "name a new file" in again.err
    assert shop("dlq", "export", "more.jsonl", "--payloads").code == 0
    assert json.loads((shop.folder / "more.jsonl").read_text())["payload"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "name ids, give a filter, or give --all"),
        (["purge", "x", "--all"], "give ids or --all, not both"),
        (["replay", "nothing", "--yes"], "no dead letter nothing in "),
        (["list", "--handler", "nothing"], "the contract has no such handler or group"),
        (["show", "nothing"], "no dead letter nothing in "),
        (["list", "--since", "yesterday"], "write an ISO 8601 time, or an age"),
    ],
)
def test_mistakes_end_with_2_and_change_nothing(
    shop: Project, arguments: list[str], said: str
) -> None:
    assert shop("topology", "apply").code == 0
    done = shop("dlq", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_without_a_terminal_a_change_needs_yes(shop: Project) -> None:
    (id,) = _fail(shop, 1)
    done = shop("dlq", "purge", id)
    assert done.code == 2
    assert "give --yes" in done.err
    assert len(_dead(shop)) == 1


def test_a_topic_can_be_named_without_a_contract(project: Project, shop: Project) -> None:
    (id,) = _fail(shop, 1)
    (shop.folder / "gen").rename(shop.folder / "elsewhere")
    (row,) = shop("dlq", "list", "--topic", "orders.placed..billing..dead", "--json").json()
    assert row["id"] == id
