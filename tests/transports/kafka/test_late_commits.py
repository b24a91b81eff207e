"""Commits that fail or get no answer: little is handed out meanwhile, and nothing redone after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata
from protoflow.testing import Listener
from protoflow.transports.kafka import consumption
from protoflow.transports.kafka.transport import KafkaTransport

from tests.transports.kafka.harness import (
    ack,
    join,
    opened,
    payloads,
    publish,
    settings,
    take,
    unique,
)

#: More than this is not handed out.
IN_FLIGHT = 8
COUNT = 40

Commit = Callable[[AIOKafkaConsumer, dict[TopicPartition, OffsetAndMetadata]], Any]


async def fails(consumer: AIOKafkaConsumer, offsets: object) -> None:
    raise KafkaConnectionError("as asked")


async def moved(consumer: AIOKafkaConsumer, offsets: object) -> None:
    raise CommitFailedError("as asked")


async def hangs(consumer: AIOKafkaConsumer, offsets: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("commit", [fails, moved, hangs])
async def test_no_more_is_handed_out_than_may_be_in_flight_until_a_commit_is_confirmed(
    url: str, monkeypatch: pytest.MonkeyPatch, commit: Commit
) -> None:
    async with opened(url, options={"request_timeout": 2.0}) as broker:
        await _is_limited(broker, monkeypatch, commit)


async def _is_limited(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch, commit: Commit
) -> None:
    monkeypatch.setattr(consumption, "_PATIENCE", 0.0)
    topic, listener = unique(), Listener()
    subscription: Any = await join(
        broker, settings(topic, max_in_flight=IN_FLIGHT, concurrency=1), listener
    )
    state = subscription._consumption
    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaConsumer, "commit", commit)
        await publish(broker, topic, b"0")
        await ack(subscription, *await take(subscription, 1))
        async with asyncio.timeout(20):
            while listener.healthy != [False]:
                await asyncio.sleep(0.01)
        await publish(broker, topic, *[b"%d" % number for number in range(1, COUNT)])
        await ack(subscription, *await take(subscription, IN_FLIGHT))
        async with asyncio.timeout(20):
            while state.ready.is_empty:  # the rest was read
                await asyncio.sleep(0.01)
        receiving = asyncio.ensure_future(subscription.receive(1, 1024))
        await asyncio.wait([receiving], timeout=0.6)
        assert not receiving.done(), "it was handed out"
    assert "no commit was confirmed" in listener.health[0][1]
    received = [*await receiving, *await take(subscription, COUNT - IN_FLIGHT - 2)]
    assert payloads(received) == [b"%d" % number for number in range(IN_FLIGHT + 1, COUNT)]
    assert listener.healthy == [False, True]


@pytest.mark.parametrize("owner", ["this process", "another process"])
async def test_partitions_that_come_back_go_on_where_this_process_was(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    topic = unique()
    subscription: Any = await join(broker, settings(topic))
    assignment = subscription._membership._assignment
    await publish(broker, topic, *[b"%d" % number for number in range(5)])
    batch = await take(subscription, 5)
    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaConsumer, "commit", fails)
        await ack(subscription, batch[0], batch[1], batch[3])
        await assignment.give_up(drains=False)
    if owner == "another process":
        assignment._positions._writer = "another"
    assignment.prepare_again()
    await publish(broker, topic, b"last")
    expected = [b"2", b"4", b"last"] if owner == "this process" else [b"0", b"1", b"2"]
    assert payloads(await take(subscription, 3)) == expected


async def test_a_topic_whose_commits_are_refused_limits_no_other(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, group = unique(), unique("group")
    commit = AIOKafkaConsumer.commit

    async def commits(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, Any]) -> None:
        if any(tp.topic == refused for tp in offsets):
            raise TopicAuthorizationFailedError(refused)
        await commit(consumer, offsets)

    first = await join(broker, settings(refused, group))
    topic = unique()
    second = await join(broker, settings(topic, group, max_in_flight=IN_FLIGHT, concurrency=1))
    monkeypatch.setattr(AIOKafkaConsumer, "commit", commits)
    await publish(broker, refused, b"0")
    await publish(broker, topic, *[b"%d" % number for number in range(COUNT)])
    await ack(first, *await take(first, 1))
    for _ in range(COUNT):
        await ack(second, *await take(second, 1))
        await asyncio.sleep(0.02)
