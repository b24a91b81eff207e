"""Members end within their deadline; no message is lost or marked as a killer."""

from __future__ import annotations

import asyncio
import time

from protoflow.dead_letters import dead_letters_of
from protoflow.testing.transports.harness import (
    MEGABYTE,
    TransportHarness,
    needs,
    numbers,
    payloads,
)


async def test_stop_is_bounded_and_may_be_called_twice(harness: TransportHarness) -> None:
    """Stops a member with unsettled deliveries and a waiting `receive`."""
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 20))
    await member.take(20)
    receiving = asyncio.ensure_future(member.subscription.receive(5, MEGABYTE))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    async with asyncio.timeout(5 * harness.target.patience):
        await member.subscription.stop()
        await member.subscription.stop()
    assert list(await asyncio.wait_for(receiving, 5)) == []
    assert list(await member.subscription.receive(5, MEGABYTE)) == []
    async with asyncio.timeout(10 * harness.target.patience):
        await harness.close()
    assert time.monotonic() - started < 15 * harness.target.patience


async def test_a_cancelled_end_leaves_nothing_behind(harness: TransportHarness) -> None:
    """Cancels `stop`, as the deadline of a shutdown does."""
    await harness.close()
    before = asyncio.all_tasks()
    transport = harness.transport = await harness.connect()
    topic = harness.topic()
    member = await harness.join(topic, transport=transport)
    await harness.send(topic, *numbers(0, 20))
    await member.take(5, most=5)
    for ending in (member.subscription.stop, transport.close):
        task = asyncio.ensure_future(ending())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10 * harness.target.patience)
        assert task.done()
    async with asyncio.timeout(10 * harness.target.patience):
        await transport.close()
        await harness.stop_senders()
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.05)


@needs("at_least_once")
async def test_many_restarts_with_a_backlog_lose_and_dead_letter_nothing(
    harness: TransportHarness,
) -> None:
    topic, count = harness.topic(), 60
    ordering = harness.strongest_order()
    await harness.join(topic, ordering=ordering, lease=2.0)
    await harness.send(topic, *numbers(0, count), key=b"k")
    done: list[bytes] = []
    for _ in range(harness.target.restarts):
        await harness.reopen()
        member = await harness.join(topic, ordering=ordering, lease=2.0)
        batch = await member.take(3, within=20, most=3)
        assert all(delivery.failures == 0 for delivery in batch)
        await member.ack(batch[0])
        done.append(batch[0].message.payload or b"")
        await member.subscription.stop()
    await harness.reopen()
    member = await harness.join(topic, ordering=ordering, lease=2.0)
    while len({*done}) < count:
        batch = await member.take(1, within=20)
        assert batch[0].failures == 0
        await member.ack(*batch)
        done += payloads(batch)
    if ordering.name == "PER_KEY":
        assert sorted({*done}, key=done.index) == numbers(0, count)
    assert sorted({*done}) == sorted(numbers(0, count))
    if harness.capabilities.dead_letters:
        dead_letters = dead_letters_of(harness.transport)
        assert await dead_letters.count(harness.dead_letter_topic(topic)) == 0
