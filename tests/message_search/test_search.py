"""search_journal and search_broker: every broker, and what is not known."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Context, DeadLetter, Message, Service, wire
from protoflow.connection import Connection
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.ids import new_id
from protoflow.message_search import Bounds, Report, search_broker, search_journal
from protoflow.transport import SubscriptionSettings, Topology

from tests.brokers import url_of


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
    async with Connection(config) as connection:
        await search_broker(
            connection.transport, connection.dead_letters, topology, report, Bounds(**bounds)
        )
    return report


@pytest.mark.parametrize("name", ["sqlite", "postgresql", "kafka", "jetstream", "rabbitmq", "nats"])
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
        assert any("cannot read messages in topics" in place for place in report.not_searched)
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
    absent = ("no such", "does not exist")
    assert any(text in place for place in report.not_searched for text in absent)
    report = await searched(config, ids[4], topology, limit=2)
    assert not report.known
    assert any("scan-limit" in place for place in report.not_searched)
    report = await searched(config, "no-ulid", topology)
    assert not report.known
    assert f"{topic}: the id contains no time; set one with since" in report.not_searched
    report = await searched(config, "no-ulid", topology, since=time.time() - 60)
    assert report.known
    for bounds in ({"since": time.time() + 60}, {"since": time.time() - 60, "within": 1.0}):
        report = await searched(config, "no-ulid", topology, **bounds)
        assert not report.known
