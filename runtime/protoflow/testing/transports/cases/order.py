"""The order per key and per partition, over all members of a group."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Settlement
from protoflow.testing.transports.harness import (
    MEGABYTE,
    Member,
    TransportHarness,
    needs,
    numbers,
    payloads,
)


@needs("per_key")
async def test_each_key_keeps_its_order(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_KEY)
    for payload in numbers(0, 60):
        await harness.publish(harness.message(topic, payload, key=b"k%d" % (int(payload) % 3)))
    seen = defaultdict(list)
    for _ in range(6):
        batch = await member.take(10)
        for delivery in batch:
            seen[delivery.message.key].append(int(delivery.message.payload or b""))
        await member.ack(*batch)
    assert seen == {b"k%d" % key: list(range(key, 60, 3)) for key in range(3)}


@needs("per_key", "broker_retry", "persists_attempts")
async def test_a_waiting_message_holds_its_key_and_no_other(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_KEY, needs_broker_retry=False)
    await harness.send(topic, b"a1", b"a2", b"a3", key=b"a")
    first, *rest = await member.take(3)
    assert first.message.payload == b"a1"
    await member.settle(
        Settlement(first, Action.NACK, delay=1.0, failures=1),
        *(Settlement(delivery, Action.RELEASE) for delivery in rest),
    )
    await harness.send(topic, b"b1", key=b"b")
    await harness.send(topic, b"a4", key=b"a")
    (other,) = await member.take(1)
    assert other.message.payload == b"b1"
    await member.ack(other)
    seen: list[bytes] = []
    while len(seen) < 4:
        batch = await member.take(1, within=10)
        seen += payloads(batch)
        await member.ack(*batch)
    assert seen == [b"a1", b"a2", b"a3", b"a4"]


@needs("per_key", "broker_retry", "persists_attempts")
async def test_what_was_released_stays_behind_what_then_failed(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_KEY, needs_broker_retry=False)
    await harness.send(topic, b"a1", b"a2", b"a3", key=b"a")
    await member.release(*await member.take(3))
    (first,) = await member.take(1)
    assert first.message.payload == b"a1"
    await member.settle(Settlement(first, Action.NACK, delay=1.0, failures=1))
    await member.nothing(0.4)
    again = await member.take(1, within=10)
    assert payloads(again) == [b"a1"]
    await member.ack(*again)
    batch = await member.take(2)
    assert payloads(batch) == [b"a2", b"a3"]
    await member.ack(*batch)


@needs("per_key", "delayed_publish", "persists_attempts")
async def test_a_delayed_publish_keeps_its_place_in_its_key(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_KEY)
    for payload, delay in ((b"a1", 0.0), (b"a2", 1.0), (b"a3", 0.0)):
        await harness.publish(harness.message(topic, payload, key=b"a", delay=delay))
    first = await member.take(1)
    await member.nothing(0.1)
    await member.ack(*first)
    await member.nothing(0.4)
    seen = payloads(first)
    while len(seen) < 3:
        batch = await member.take(1, within=10)
        seen += payloads(batch)
        await member.ack(*batch)
    assert seen == [b"a1", b"a2", b"a3"]


@needs("per_key")
async def test_messages_without_key_wait_for_nobody(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_KEY)
    await harness.send(topic, *numbers(0, 3))
    first = await member.take(1)
    second = await member.take(2)
    await member.ack(*second)
    await member.ack(*first)


@asynccontextmanager
async def at_work(
    harness: TransportHarness, members: Sequence[Member], count: int
) -> AsyncIterator[list[tuple[bytes, int]]]:
    """Runs members that handle messages as the scheduler does, until `count` are handled.

    Yields the list of keys and numbers, in the order of handling.
    """
    log: list[tuple[bytes, int]] = []
    running: set[bytes] = set()
    workers = [asyncio.create_task(work(member, log, running)) for member in members]
    try:
        yield log
        async with asyncio.timeout(30 * harness.target.patience):
            while len(log) < count and not any(worker.done() for worker in workers):
                await asyncio.sleep(0.02)
    finally:
        for worker in workers:
            worker.cancel()
        results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def work(member: Member, log: list[tuple[bytes, int]], running: set[bytes]) -> None:
    """Handles batches as the scheduler does: the messages of a key in turn, keys concurrently.

    A revocation waits for the batch.
    """
    idle = asyncio.Event()
    idle.set()
    member.listener.on_revoke = idle.wait
    try:
        while True:
            batch = await member.subscription.receive(8, MEGABYTE)
            idle.clear()
            lanes: dict[bytes, list[Delivery]] = defaultdict(list)
            for delivery in batch:
                lanes[delivery.message.key or b""].append(delivery)
            await asyncio.gather(*(_lane(member, lane, log, running) for lane in lanes.values()))
            idle.set()
    finally:
        idle.set()


async def _lane(
    member: Member, lane: list[Delivery], log: list[tuple[bytes, int]], running: set[bytes]
) -> None:
    for index, delivery in enumerate(lane):
        key = delivery.message.key or b""
        assert key not in running, "two members handle one key at the same time"
        running.add(key)
        await asyncio.sleep(random.random() * 0.01)
        running.discard(key)
        if random.random() < 0.15:
            await member.settle(
                Settlement(delivery, Action.NACK, failures=1),
                *(Settlement(later, Action.RELEASE) for later in lane[index + 1 :]),
            )
            return
        log.append((key, int(delivery.message.payload or b"")))
        await member.ack(delivery)


@needs("per_key", "at_least_once")
async def test_two_members_of_a_group_keep_the_order_of_each_key(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic, ordering=Ordering.PER_KEY)
    second = await harness.join(topic, transport=await harness.connect(), ordering=Ordering.PER_KEY)
    async with at_work(harness, (first, second), 120) as log:
        for number in range(120):
            await harness.publish(harness.message(topic, b"%d" % number, key=b"k%d" % (number % 4)))
    for key in range(4):
        seen = [number for lane, number in log if lane == b"k%d" % key]
        assert seen == list(range(key, 120, 4))


@needs("per_partition", "at_least_once")
async def test_a_partition_is_handled_one_at_a_time(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_PARTITION, needs_broker_retry=False)
    await harness.send(topic, *numbers(0, 5), key=b"k")
    first, *rest = await member.take(5)
    assert payloads([first, *rest]) == numbers(0, 5)
    assert len({delivery.shard for delivery in (first, *rest)}) == 1
    await member.settle(
        Settlement(first, Action.NACK, failures=1),
        *(Settlement(delivery, Action.RELEASE) for delivery in rest),
    )
    again = await member.take(5)
    assert payloads(again) == numbers(0, 5)
    await member.ack(*again)


@needs("per_partition", "broker_retry", "persists_attempts")
async def test_a_waiting_message_holds_its_partition(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=Ordering.PER_PARTITION, needs_broker_retry=False)
    await harness.send(topic, b"1", key=b"k")
    (delivery,) = await member.take(1)
    await member.settle(Settlement(delivery, Action.NACK, delay=1.0, failures=1))
    await harness.send(topic, b"2", key=b"k")
    seen: list[bytes] = []
    while len(seen) < 2:
        batch = await member.take(1, within=10)
        seen += payloads(batch)
        await member.ack(*batch)
    assert seen == [b"1", b"2"]
