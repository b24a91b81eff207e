"""Each group receives every message, and receives it again until it is settled."""

from __future__ import annotations

import asyncio
import time

from protoflow.message import Message
from protoflow.testing.transports.harness import (
    MEGABYTE,
    TransportHarness,
    needs,
    numbers,
    payloads,
)


async def test_what_is_published_is_received_and_gone_once_acknowledged(
    harness: TransportHarness,
) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    before = time.time()
    (message,) = await harness.send(topic, b"hello")
    (delivery,) = await member.take(1)
    assert delivery.message.id == message.id
    assert delivery.message.topic == topic
    assert delivery.message.payload == b"hello"
    assert delivery.failures == 0
    assert delivery.attempt == 1
    assert delivery.size >= 5
    assert delivery.time == 0.0 or abs(delivery.time - before) < 30
    await member.ack(delivery)
    await member.nothing()


async def test_many_messages_arrive_once_each(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 1000))
    seen: list[bytes] = []
    while len(seen) < 1000:
        batch = await member.take(min(100, 1000 - len(seen)), within=20)
        seen += payloads(batch)
        await member.ack(*batch)
    assert sorted(seen) == sorted(numbers(0, 1000))
    await member.nothing()


@needs("groups")
async def test_each_group_gets_every_message(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic, harness.group("billing"))
    second = await harness.join(topic, harness.group("mailing"))
    await harness.send(topic, *numbers(0, 10))
    for member in (first, second):
        batch = await member.take(10)
        assert sorted(payloads(batch)) == numbers(0, 10)
        await member.ack(*batch)
    await first.nothing()
    await second.nothing()


@needs("groups")
async def test_a_message_settled_in_one_group_stays_in_the_other(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic, harness.group("billing"))
    second = await harness.join(topic, harness.group("mailing"))
    await harness.send(topic, b"x")
    await first.ack(*await first.take(1))
    (delivery,) = await second.take(1)
    await second.release(delivery)
    await second.ack(*await second.take(1))


@needs("groups")
async def test_members_of_a_group_share_its_messages(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic)
    second = await harness.join(topic, transport=await harness.connect())
    taken = asyncio.gather(first.drain(quiet=1.5), second.drain(quiet=1.5))
    for number in range(40):
        await harness.send(topic, b"%d" % number, key=b"%d" % number)
    batches = await taken
    together = payloads(batches[0]) + payloads(batches[1])
    assert sorted(together) == sorted(numbers(0, 40))


async def test_a_waiting_receive_is_woken_by_a_publish(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    receiving = asyncio.ensure_future(member.take(1))
    await asyncio.sleep(0.1)
    await harness.send(topic, b"x")
    (delivery,) = await receiving
    await member.ack(delivery)


@needs("at_least_once")
async def test_what_was_not_settled_comes_again_after_a_restart(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, lease=2.0)
    await harness.send(topic, *numbers(0, 4))
    batch = await member.take(4)
    await member.ack(*batch[:2])
    await harness.reopen()
    member = await harness.join(topic, lease=2.0)
    again = await member.take(2, within=15)
    assert sorted(payloads(again)) == sorted(payloads(batch[2:]))
    await member.ack(*again)
    await member.nothing()


@needs("at_least_once")
async def test_a_release_gives_back_in_order_and_unblamed(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=harness.strongest_order())
    await harness.send(topic, *numbers(0, 5), key=b"k")
    batch = await member.take(5)
    assert payloads(batch) == numbers(0, 5)
    await member.ack(batch[0])
    await member.release(*batch[1:])
    again = await member.take(4)
    assert payloads(again) == numbers(1, 5)
    assert [delivery.failures for delivery in again] == [0] * 4
    await member.ack(*again)


async def test_receive_keeps_to_its_bounds(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *[bytes(10_000)] * 20)
    async with asyncio.timeout(10 * harness.target.patience):
        few = await member.subscription.receive(3, MEGABYTE)
        assert 1 <= len(few) <= 3
        light = await member.subscription.receive(20, 35_000)
        assert 1 <= len(light) <= 3
        one = await member.subscription.receive(20, 1)
        assert len(one) == 1, "a first message above the bound is received"
    rest = await member.take(20 - len(few) - len(light) - 1)
    await member.ack(*few, *light, *one, *rest)
    await member.nothing()


async def test_a_cancelled_receive_loses_nothing(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 30))
    seen: list[bytes] = []
    async with asyncio.timeout(30 * harness.target.patience):
        while len(seen) < 30:
            receiving = asyncio.ensure_future(member.subscription.receive(3, MEGABYTE))
            await asyncio.sleep(0.001 * (len(seen) % 4))
            receiving.cancel()
            (batch,) = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(batch, asyncio.CancelledError):
                batch = await member.subscription.receive(3, MEGABYTE)
            assert not isinstance(batch, BaseException)
            seen += payloads(batch)
            await member.ack(*batch)
    assert sorted(seen) == sorted(numbers(0, 30))
    await member.nothing()


async def test_stop_ends_a_waiting_receive(harness: TransportHarness) -> None:
    member = await harness.join(harness.topic())
    receiving = asyncio.ensure_future(member.subscription.receive(1, MEGABYTE))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10 * harness.target.patience):
        await member.subscription.stop()
        assert list(await receiving) == []
        assert list(await member.subscription.receive(1, MEGABYTE)) == []
        await member.subscription.stop()


@needs("at_least_once")
async def test_stop_gives_back_what_was_not_handed_out(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 20))
    batch = await member.take(5)
    receiving = asyncio.ensure_future(member.subscription.receive(5, MEGABYTE))
    await asyncio.sleep(0)
    receiving.cancel()
    (late,) = await asyncio.gather(receiving, return_exceptions=True)
    handed = [*batch, *(late if isinstance(late, list | tuple) else ())]
    await member.ack(*handed)
    await member.subscription.stop()
    other = await harness.join(topic, transport=await harness.connect())
    rest = await other.take(20 - len(handed), within=10)
    assert sorted(payloads([*handed, *rest])) == sorted(numbers(0, 20))
    await other.ack(*rest)


async def test_paused_shards_give_nothing_until_they_are_resumed(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"0", key=b"k")
    (delivery,) = await member.take(1)
    await member.ack(delivery)
    member.subscription.pause([delivery.shard])
    (message,) = await harness.send(topic, b"1", key=b"k")
    await member.nothing()
    member.subscription.resume([delivery.shard])
    (delivery,) = await member.take(1)
    assert delivery.message.id == message.id
    await member.ack(delivery)


async def test_close_is_idempotent(harness: TransportHarness) -> None:
    await harness.join(harness.topic())
    assert harness.transport.health() is None
    async with asyncio.timeout(20 * harness.target.patience):
        await harness.transport.close()
        await harness.transport.close()


async def test_submit_fixes_the_order(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=harness.strongest_order())
    futures = [
        harness.transport.submit([harness.message(topic, payload, key=b"k")])
        for payload in numbers(0, 50)
    ]
    batch = await member.take(50)
    await member.ack(*batch)
    for errors in await asyncio.gather(*futures):
        assert list(errors) == [None]
    if harness.target.confirms_when_settled:  # messages wait for each other side by side
        batch.sort(key=lambda delivery: int(delivery.message.payload or b""))
    assert payloads(batch) == numbers(0, 50)


async def test_one_id_may_be_published_to_two_topics(harness: TransportHarness) -> None:
    first, second = harness.topic("first"), harness.topic("second")
    one, two = await harness.join(first), await harness.join(second)
    for topic in (first, second):
        await harness.publish(Message(id="same", topic=topic, payload=b"x"))
    for member in (one, two):
        (delivery,) = await member.take(1)
        assert delivery.message.id == "same"
        await member.ack(delivery)
