"""The commands on two transports: each reads the right one, by topic, group or handler."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from protoflow import Config
from protoflow.cli import lag, looking, topology
from protoflow.errors import CapabilityError
from protoflow.routing.routes import Routes
from protoflow.routing.transport import RoutedTransport
from protoflow.transport import Lag, SubscriptionSettings, Topology

from tests.cli.conftest import ORDERS, Project

SETTINGS = """
transport = "sqlite:///shop.db"
[transports.audit]
url = "sqlite:///audit.db"
[topics."orders.billed"]
transport = "audit"
"""


@pytest.fixture
def places(shop: Project) -> Project:
    """The shop, whose bills go to another database than its orders."""
    del shop.environ["PROTOFLOW_TRANSPORT"]
    shop.environ["PROTOFLOW_CONFIG"] = str(shop.write("settings.toml", SETTINGS))
    return shop


def handled(project: Project, *cents: int) -> list[str]:
    """Publishes orders, and runs the service until they are handled. Returns the ids."""
    orders = [json.dumps({"orderId": f"A-{n}", "cents": n}) for n in cents]
    published = project("publish", "OrderPlaced", "-", stdin="\n".join(orders))
    assert published.code == 0, published.err
    running = project.start("run", "app:Billing")
    assert running.stdout is not None
    while "billed" not in running.stdout.readline():
        assert running.poll() is None
    running.terminate()
    running.communicate(timeout=30)
    return published.lines


def test_a_start_would_be_checked_and_described(places: Project) -> None:
    checked = places("check")
    assert checked.code == 0, checked.out
    assert "transport sqlite:///shop.db, audit sqlite:///audit.db" in checked.out
    (row,) = places("describe", "--json").json()["handlers"]
    assert (row["transport"], row["publishes_to"]) == ("default", "audit")
    places.environ["PROTOFLOW_TOPICS__orders.billed__TRANSPORT"] = "audti"
    wrong = places("check")
    assert wrong.code == 1
    assert "topics.'orders.billed'.transport: no transport 'audti'; did you mean audit?" in (
        wrong.out + wrong.err
    )


def test_each_topic_is_made_and_read_on_its_transport(places: Project) -> None:
    planned = places("topology", "plan")
    assert planned.code == 1
    assert "topic orders.billed: transport audit: missing in audit.db" in planned.out
    assert places("topology", "apply").code == 0
    assert places("topology", "verify").code == 0
    good, bad = handled(places, 0, 1)[::-1]
    (billed,) = places("tail", "OrderBilled", "--from", "earliest", "--no-follow").lines
    assert "shop.v1.OrderBilled" in billed
    (row,) = places("lag", "--json").json()
    assert (row["topic"], row["waiting"]) == ("orders.placed", 0)
    (dead,) = places("dlq", "list", "--json").json()
    assert dead["id"] == bad
    why = places("why", good)
    assert "caused:" in why.out
    assert "searched: audit: rows of orders.billed" in why.out
    elsewhere = places("dlq", "replay", "--all", "--yes", "--to", "orders.billed")
    assert elsewhere.code == 4
    assert "orders.billed is on the transport audit" in elsewhere.err
    assert places("dlq", "replay", "--all", "--yes").code == 0
    assert places("lag", "--json").json()[0]["waiting"] == 1


def test_a_command_without_a_contract_finds_the_transport_by_the_name(places: Project) -> None:
    handled(places, 1)
    topic = "orders.placed..billing..dead"
    assert places("dlq", "list", "--topic", topic).code == 0
    assert places("publish", "OrderPlaced", '{"orderId": "A-2"}').code == 0
    assert places("lag", "--json").json()[0]["waiting"] == 1
    places.environ["PROTOFLOW_GROUPS__BILLING__TRANSPORT"] = "audit"
    assert not places("lag", "--json").json()[0]["waiting"], "the group is on another transport"


def test_databases_have_no_policy_documents(places: Project) -> None:
    refused = places("topology", "policy")
    assert refused.code == 2
    assert "sqlite: there are no policy documents" in refused.err


def connected(monkeypatch: pytest.MonkeyPatch, transport: RoutedTransport) -> None:
    """Makes commands use a transport."""

    @asynccontextmanager
    async def connection(*_arguments: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(transport=transport)

    monkeypatch.setattr(looking, "connection", connection)


async def test_a_transport_that_reports_no_lag_leaves_the_lag_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Part:
        async def lag(self, topic: str, group: str) -> Lag:
            return Lag(messages=3, seconds=1.0)

    config = Config(
        environ={}, transport="kafka://a", transports={"core": "nats://b"},
        groups={"g": {"transport": "core"}},
    )  # fmt: skip
    parts: Any = {"default": Part(), "core": object()}
    connected(monkeypatch, RoutedTransport(parts, Routes(config)))
    first, second = (
        SubscriptionSettings(name=name, topic=name, group="g", transport=name) for name in parts
    )
    rows = await lag._read(config, [first, second])
    assert [(row["waiting"], row["note"]) for row in rows] == [
        (3, ""), (None, "nats does not report lag"),
    ]  # fmt: skip
    with pytest.raises(CapabilityError, match="nats does not report lag"):
        await lag._read(config, [second])


async def test_each_transport_prints_the_policy_of_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Part:
        def policy(self, share: Topology) -> dict[str, Any]:
            return {"Resource": list(share.topics)}

    queue = {"queue": "sqs://eu-central-1", "other": "sqlite:///o.db"}
    routed = {name: {"transport": name} for name in queue}
    config = Config(environ={}, transport="kafka://a", transports=queue, topics=routed)
    made: Any = {"default": object(), "queue": Part(), "other": object()}
    connected(monkeypatch, RoutedTransport(made, Routes(config)))
    wanted = Topology(subscriptions=(), topics=("queue", "placed"))
    assert await topology._policy(config, wanted) == {"queue": {"Resource": ["queue"]}}


def test_a_replay_goes_to_the_transport_that_the_group_consumes_from(places: Project) -> None:
    places.environ["PROTOFLOW_TOPICS__orders.placed__TRANSPORT"] = "audit"
    handled(places, 0, 1)
    del places.environ["PROTOFLOW_TOPICS__orders.placed__TRANSPORT"]
    places.environ["PROTOFLOW_GROUPS__BILLING__TRANSPORT"] = "audit"
    done = places("dlq", "replay", "--all", "--yes", "--to", "orders.placed")
    assert done.code == 0, done.err
    assert places("lag", "--json").json()[0]["waiting"] == 1


def test_dead_letters_are_listed_beside_a_transport_that_cannot_list_any(places: Project) -> None:
    more = """
    service Shipping {
      rpc Ship(OrderBilled) returns (google.protobuf.Empty) { option (protoflow.v1.consume) = {}; }
    }
    """
    handled(places, 0, 1)
    contract = ORDERS.replace("import", 'import "google/protobuf/empty.proto";\nimport', 1) + more
    places.write("proto/shop/v1/orders.proto", contract)
    assert places("generate", "-q").code == 0
    settings = SETTINGS.replace("sqlite:///audit.db", "http://127.0.0.1:1")
    places.write("settings.toml", settings)
    found = places("dlq", "list", "--json")
    assert (found.code, len(found.json())) == (0, 1), found.err
    assert "dead: the transport audit cannot list its dead letters" in found.err
    refused = places("dlq", "list", "--group", "shop.v1.Shipping")
    assert refused.code == 2
    assert "the transport audit cannot list its dead letters" in refused.err
