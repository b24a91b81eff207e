"""`protoflow tail` on every broker: from the beginning, from a time, and what comes."""

from __future__ import annotations

import datetime
import json
import signal
import subprocess
import time
import uuid

import pytest

from tests.brokers import url_or_skip
from tests.cli.conftest import Project

_LIVE_ONLY = {"rabbitmq", "nats"}


@pytest.fixture(params=["sqlite", "postgresql", "kafka", "rabbitmq", "jetstream", "nats"])
def broker(request: pytest.FixtureRequest, shop: Project) -> str:
    """The shop on a broker; each run has a namespace of its own."""
    name = str(request.param)
    if name != "sqlite":
        url = url_or_skip(name)
        shop.use(url)
    shop.environ["PROTOFLOW_NAMESPACE"] = f"tail-{uuid.uuid4().hex[:8]}"
    if name != "nats":  # which keeps no order per key, so the contract has no plan there
        assert shop("topology", "apply").code == 0
    return name


def _order(number: int) -> str:
    return json.dumps({"orderId": f"A-{number}", "cents": number, "email": "ann@example.org"})


def _publish(shop: Project, *numbers: int) -> list[str]:
    lines = "\n".join(map(_order, numbers))
    done = shop("publish", "OrderPlaced", "-", stdin=lines)
    assert done.code == 0, done.err
    return done.lines


def _lines(running: subprocess.Popen[str], count: int) -> list[str]:
    assert running.stdout is not None
    return [running.stdout.readline() for _ in range(count)]


def test_what_comes_is_shown_without_joining_a_group(broker: str, shop: Project) -> None:
    running = shop.start("tail", "OrderPlaced", "--json", "-n", "2")
    published: list[str] = []
    deadline = time.monotonic() + 40
    # The command has no sign that it listens, so messages are published until it has two.
    while running.poll() is None:
        assert time.monotonic() < deadline
        published += _publish(shop, len(published))
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0, err
    shown = [json.loads(line) for line in out.splitlines()]
    assert [one["id"] for one in shown] == [id for id in published if id in out]
    assert len(shown) == 2
    assert {one["type"] for one in shown} == {"shop.v1.OrderPlaced"}
    assert {one["payload"]["email"] for one in shown} == {"***"}
    assert "ann@example.org" not in out


def test_what_is_there_is_shown_from_the_beginning_or_a_time(broker: str, shop: Project) -> None:
    if broker in _LIVE_ONLY:
        done = shop("tail", "OrderPlaced", "--from", "earliest", "--no-follow")
        assert done.code == 2
        assert "only new messages" in done.err
        return
    first = _publish(shop, 1, 2)
    time.sleep(1.1)
    middle = datetime.datetime.now(datetime.UTC)
    time.sleep(0.1)
    second = _publish(shop, 3)
    all_of = shop("tail", "OrderPlaced", "--no-follow", "--json")
    assert sorted(json.loads(line)["id"] for line in all_of.lines) == sorted(first + second)
    later = shop("tail", "orders.placed", "--from", middle.isoformat(), "--no-follow", "--json")
    assert [json.loads(line)["id"] for line in later.lines] == second
    found = shop("tail", "OrderPlaced", "--from", "earliest", "--no-follow", "--where", "cents=2")
    assert [line.split()[1] for line in found.lines] == [first[1]]
    assert "A-2" in found.out


def test_a_topic_that_is_not_there_is_an_error(shop: Project) -> None:
    assert shop("topology", "apply").code == 0
    done = shop("tail", "nothing", "--no-follow")
    assert (done.code, done.out) == (2, "")
    assert "nothing" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--where", "email=ann"], "the field is sensitive"),
        (["--where", "orderId=A-1"], "has a field orderId; did you mean order_id?"),
        (["--where", "email"], "write FIELD=VALUE"),
        (["--from", "yesterday"], "write earliest, latest or an ISO 8601 time"),
    ],
)
def test_wrong_options_are_named(shop: Project, arguments: list[str], said: str) -> None:
    done = shop("tail", "OrderPlaced", *arguments)
    assert done.code == 2
    assert said in done.err


def test_an_interrupted_tail_ends_with_130(shop: Project) -> None:
    assert shop("topology", "apply").code == 0
    running = shop.start("tail", "OrderPlaced", "--from", "earliest")
    (id,) = _publish(shop, 1)
    assert running.stdout is not None
    assert id in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err.strip()) == (130, "")
