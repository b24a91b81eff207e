"""A topic is read outside of all groups, which changes nothing for any group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest

from protoflow.errors import TopologyError
from protoflow.testing.transports.harness import TransportHarness, needs, numbers, payloads
from protoflow.transport import Start, TopicReader, TopicRecord


def read(
    harness: TransportHarness, topic: str, start: Start | float, *, follow: bool = False
) -> AsyncGenerator[TopicRecord]:
    assert isinstance(harness.transport, TopicReader)
    records = harness.transport.read_topic(topic, start=start, follow=follow)
    assert isinstance(records, AsyncGenerator), "every reader closes it at the end"
    return records


async def read_all(
    harness: TransportHarness, topic: str, start: Start | float
) -> list[TopicRecord]:
    async with asyncio.timeout(10 * harness.target.patience):
        return [record async for record in read(harness, topic, start)]


async def test_the_claim_is_what_the_transport_implements(harness: TransportHarness) -> None:
    assert harness.capabilities.reads_topics == isinstance(harness.transport, TopicReader)


@needs("reads_topics")
async def test_what_is_kept_is_read_in_order_from_a_start_and_the_group_still_gets_it(
    harness: TransportHarness,
) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    sent = await harness.send(topic, *numbers(0, 10), key=b"k")
    found = await read_all(harness, topic, Start.EARLIEST)
    assert [record.message.id for record in found] == [message.id for message in sent]
    assert [record.message.payload for record in found] == numbers(0, 10)
    assert all(record.message.key == b"k" and record.position for record in found)
    assert all(abs(record.time - time.time()) < 600 for record in found)
    await asyncio.sleep(0.1)
    await harness.send(topic, b"10", key=b"k")
    last = (await read_all(harness, topic, Start.EARLIEST))[-1]
    later = await read_all(harness, topic, last.time)
    assert [record.message.payload for record in later] == [b"10"]
    assert await read_all(harness, topic, last.time + 60) == []
    assert await read_all(harness, topic, Start.LATEST) == []
    assert sorted(payloads(await member.take(11))) == sorted(numbers(0, 11))

    with pytest.raises(TopologyError, match="missing"):
        await read_all(harness, harness.topic("missing"), Start.EARLIEST)
    async with (
        contextlib.aclosing(read(harness, topic, last.time, follow=True)) as records,
        asyncio.timeout(10 * harness.target.patience),
    ):
        assert (await anext(records)).message.payload == b"10"
        await harness.send(topic, b"later", key=b"k")
        assert (await anext(records)).message.payload == b"later"


@needs("reads_topics")
async def test_a_part_is_read_between_positions_or_times(harness: TransportHarness) -> None:
    topic = harness.topic()
    await harness.join(topic)
    await harness.send(topic, *numbers(0, 4), key=b"k")
    await asyncio.sleep(0.1)
    await harness.send(topic, *numbers(4, 6), key=b"k")
    records = await read_all(harness, topic, Start.EARLIEST)
    second, fourth, fifth = records[1], records[3], records[4]
    assert isinstance(harness.transport, TopicReader)
    for start, end, expected in (
        (second.position, fourth.position, numbers(1, 3)),
        (second.position, None, numbers(1, 6)),
        (Start.EARLIEST, fifth.time, numbers(0, 4)),
        (fifth.time, fifth.time + 60, numbers(4, 6)),
        (fourth.position, second.position, []),
        (Start.EARLIEST, 0, []),
        (int(fifth.time) + 60, None, []),
    ):
        part = harness.transport.read_topic(topic, start=start, end=end)
        assert [record.message.payload async for record in part] == expected


@needs("reads_topics", "keeps_settled")
async def test_settled_messages_stay_in_the_topic(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 3), key=b"k")
    await member.ack(*await member.take(3))
    found = await read_all(harness, topic, Start.EARLIEST)
    assert [record.message.payload for record in found] == numbers(0, 3)


@needs("reads_topics")
async def test_a_read_ends_with_what_was_there_while_others_publish(
    harness: TransportHarness,
) -> None:
    topic = harness.topic()
    await harness.join(topic)
    await harness.send(topic, *numbers(0, 5), key=b"k")
    found: list[bytes | None] = []
    async with asyncio.timeout(20 * harness.target.patience):
        async for record in read(harness, topic, Start.EARLIEST):
            found.append(record.message.payload)
            if len(found) < 20:  # ends the case even if `read` also returns new records
                await harness.send(topic, b"later", key=b"k")
    assert found == numbers(0, 5)
