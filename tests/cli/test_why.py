"""`protoflow why`: the journal, every broker, and what is not known."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Context, DeadLetter, Message, Service, wire
from protoflow.cli.why.search import search_broker, search_journal
from protoflow.cli.why.timeline import Report
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.ids import new_id
from protoflow.transport import SubscriptionSettings, Topology

from tests.brokers import url_of
from tests.cli.conftest import Project

BOUNDS = {"since": None, "within": 3600.0, "limit": 100_000}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.02)


def config_of(name: str, folder: Path, **settings: Any) -> Config:
    url = f"sqlite:///{folder / 'queue.db'}" if name == "sqlite" else url_of(name)
    if url is None:
        pytest.skip(f"broker: {name}")
    return Config(transport=url, environ={}, connect_timeout=20, **settings)


def topology_of(topic: str, group: str) -> Topology:
    one = SubscriptionSettings(
        name=f"{topic}/{group}", topic=topic, group=group,
        dead_letter_topics=(f"{topic}..{group}..dead",),
    )  # fmt: skip
    return Topology(subscriptions=(one,), topics=(topic, f"{topic}.billed"))


def handler_of(topic: str) -> Any:
    async def handle(message: Message, context: Context) -> Message:
        if message.payload == b"bad":
            raise ValueError("no sum")
        if message.payload == b"dead":
            raise DeadLetter("no sum")
        caused = {wire.CAUSATION_ID: message.id, wire.CE_TYPE: "shop.v1.OrderBilled"}
        return Message(id=f"{message.id}-b", topic=f"{topic}.billed", payload=b"", metadata=caused)

    return handle


async def searched(config: Config, id: str, topology: Topology, **bounds: Any) -> Report:
    report = Report(id=id)
    search_journal(config, report)
    await search_broker(config, topology, report, BOUNDS | bounds)
    return report


@pytest.mark.parametrize("name", ["sqlite", "kafka", "jetstream", "rabbitmq", "nats"])
async def test_each_broker_is_asked_for_what_it_knows(name: str, tmp_path: Path) -> None:
    topic, group = f"why-{uuid.uuid4().hex[:8]}", "billing"
    once = name == "nats"  # which delivers at most once
    journal = "" if name != "nats" else str(tmp_path / "journal.db")
    config = config_of(name, tmp_path, journal=journal)
    retry = RetryPolicy(max_attempts=2, initial_backoff=0.001)
    policy = DeliveryPolicy() if once else DeliveryPolicy(retry=retry)
    payloads = (b"good", b"dead" if once else b"bad")
    service = Service(config)
    service.register_message_handler(group, topic, handler_of(topic), delivery=policy)
    good, bad, late = (new_id() for _ in range(3))
    async with service:
        stats = service.stats()[group]
        for id, payload in zip((good, bad), payloads, strict=True):
            await service.publish(Message(id=id, topic=topic, payload=payload))
        await until(lambda: stats.handled == 1 and stats.dead_lettered + stats.dropped == 1)
    topology = topology_of(topic, group)
    dead = topology.subscriptions[0].dead_letter_topics[0]

    report = await searched(config, bad, topology)
    events = [row.event for row in report.timeline]
    if once:
        assert events == ["dropped"]
        assert any("takes" in place or "taking" in place for place in report.not_searched)
        return
    assert events == ["published", "dead-lettered"]
    assert report.timeline[-1].detail == "ValueError: no sum"
    assert report.timeline[-1].attempt == 2
    assert report.groups == {(topic, group): f"dead letter in {dead}"}
    assert f"dead letters in {dead}" in report.searched

    report = await searched(config, good, topology)
    if name == "rabbitmq":  # which keeps nothing of it
        assert not report.known
        assert any(topic in place for place in report.not_searched)
        return
    assert report.groups[topic, group].startswith("settled")
    assert [(one.id, one.type) for one in report.caused] == [
        (f"{good}-b", "shop.v1.OrderBilled"),
    ]
    caused = await searched(config, f"{good}-b", topology, since=time.time() - 60)
    assert caused.caused_by == good

    async with Service(config) as publisher:  # nobody consumes meanwhile
        await publisher.publish(Message(id=late, topic=topic, payload=b"bad"))
    report = await searched(config, late, topology)
    assert [row.event for row in report.timeline] == ["published"]
    assert report.groups[topic, group] in ("waiting", "not settled yet")


@pytest.mark.parametrize("name", ["kafka", "jetstream"])
async def test_logs_are_searched_within_bounds(name: str, tmp_path: Path) -> None:
    topic = f"why-{uuid.uuid4().hex[:8]}"
    config = config_of(name, tmp_path)
    ids = [new_id() for _ in range(5)]
    async with Service(config) as publisher:
        await publisher.publish(*[Message(id=id, topic=topic, payload=b"") for id in ids])
        await publisher.publish(Message(id="no-ulid", topic=topic, payload=b""))
    topology = Topology(topics=(topic, f"{topic}.missing"))

    report = await searched(config, ids[0], topology)
    assert [row.event for row in report.timeline] == ["published"]
    assert any("no such" in place for place in report.not_searched)
    report = await searched(config, ids[4], topology, limit=2)
    assert not report.known
    assert any("--scan-limit" in place for place in report.not_searched)
    report = await searched(config, "no-ulid", topology)
    assert not report.known
    assert f"{topic}: the id holds no time; give --since" in report.not_searched
    report = await searched(config, "no-ulid", topology, since=time.time() - 60)
    assert report.known
    for bounds in ({"since": time.time() + 60}, {"since": time.time() - 60, "within": 1.0}):
        report = await searched(config, "no-ulid", topology, **bounds)
        assert not report.known


def test_the_command_joins_journal_and_broker(shop: Project) -> None:
    shop.environ["PROTOFLOW_JOURNAL"] = "journal.db"
    running = shop.start("run", "app")
    assert running.stdout is not None
    assert running.stdout.readline().startswith("1 handler")
    (bad,) = shop("publish", "OrderPlaced", '{"orderId": "A-2"}').lines
    deadline = time.monotonic() + 60
    while not shop("dlq", "list", "--json").json():
        assert time.monotonic() < deadline
    running.terminate()
    running.communicate(timeout=30)
    assert shop("dlq", "replay", bad, "--yes").code == 0
    assert shop("dlq", "replay", bad, "--yes").code == 2

    done = shop("why", bad, "--json")
    assert done.code == 0, done.err
    report = done.json()
    timeline = [(row["event"], row["attempt"]) for row in report["timeline"]]
    assert timeline == [
        *(("failed", 1), ("failed", 2), ("dead-lettered", 2), ("replayed", None)),
        ("waits again", None),
    ]
    assert report["groups"] == [
        {"topic": "orders.placed", "group": "billing", "state": "waiting"},
    ]
    table = shop("why", bad)
    assert table.code == 0
    for text in ("ValueError: no sum; again in 0.0 s", "searched: journal journal.db, from 2"):
        assert text in table.out
    assert "not searched: successful runs: only journaled with journal_successes" in table.out

    unknown = shop("why", "nothing")
    assert (unknown.code, unknown.lines[0]) == (1, "not known")
    assert "settled or never published" in unknown.out
    unreachable = shop("why", bad, "--transport", "nats://127.0.0.1:1")
    assert unreachable.code in (2, 3)
    for wrong in (["--within", "1"], ["--since", "soon"], ["--scan-limit", "0"]):
        assert shop("why", bad, *wrong).code == 2
    assert shop("why", bad, "--transport", "memory://").code == 2


def test_an_unreachable_broker_leaves_the_journal(shop: Project) -> None:
    from protoflow.journal import Event, Journal

    with Journal(str(shop.folder / "journal.db")) as journal:
        journal.record_event(Event.FAILED, "a", handler="Bill", topic="orders.placed")
    shop.environ |= {"PROTOFLOW_JOURNAL": "journal.db", "PROTOFLOW_CONNECT_TIMEOUT": "1"}
    done = shop("why", "a", "--transport", "jetstream://127.0.0.1:1", "--json")
    assert done.code == 3, done.err
    assert [row["event"] for row in done.json()["timeline"]] == ["failed"]
    assert any("127.0.0.1:1" in place for place in done.json()["not_searched"])


def test_dead_letters_go_to_another_topic(shop: Project) -> None:
    bad = shop.python(FAIL).strip()
    assert shop("dlq", "replay", bad, "--to", "nowhere", "--yes").code == 2
    assert shop("dlq", "replay", bad, "--to", "OrderBilled", "--to-origin", "--yes").code == 2
    dead = shop("dlq", "list", "--json").json()[0]["topic"]
    assert shop("dlq", "replay", bad, "--to", dead, "--yes").code == 2
    done = shop("dlq", "replay", bad, "--to", "shop.v1.OrderBilled", "--yes")
    assert done.out == "1 matched, 1 done, 0 failed\n", done.err
    tail = shop("tail", "OrderBilled", "--from", "earliest", "--no-follow", "--json")
    assert [json.loads(line)["id"] for line in tail.lines] == [bad]
    assert shop("dlq", "list", "--json").json() == []


#: Makes a dead letter, and prints its id.
FAIL = """
import asyncio, os
import protoflow
from app import Billing
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer

async def main():
    service = protoflow.Service()
    service.register(Billing())
    async with service:
        print(await OrdersEventProducer(service).publish_order_placed(OrderPlaced(order_id="A")))
        while not service.stats()["shop.v1.Orders.BillOrder"].dead_lettered:
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
