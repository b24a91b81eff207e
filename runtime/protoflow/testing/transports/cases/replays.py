"""Dead letters are replayed in order, to the failed group or to the topic, or reported."""

from __future__ import annotations

import asyncio

import pytest

from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import DeadLetterFilter
from protoflow.errors import NotReplayableError, ReplayError
from protoflow.testing.transports.cases.order import at_work
from protoflow.testing.transports.dead_letter_topic import DeadLetterTopic
from protoflow.testing.transports.harness import (
    Member,
    TransportHarness,
    needs,
    numbers,
    payloads,
)


@needs("dead_letters")
async def test_a_replay_reaches_the_group_that_failed_and_no_other(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    failed = await harness.join(dead.topic)
    other = await harness.join(dead.topic, harness.group("mailing"))
    first, second = await dead.add(b"1", b"2")
    assert await dead.dead_letters.replay(dead.name, [second]) == 1
    (delivery,) = await failed.take(1, within=10)
    assert delivery.message.id == second
    assert delivery.message.topic == dead.topic
    assert delivery.message.payload == b"2"
    assert delivery.message.key == b"k"
    assert delivery.message.metadata[wire.CORRELATION_ID] == "c-1"
    assert wire.PF_ERROR_MESSAGE not in delivery.message.metadata
    assert delivery.failures == 0
    await failed.ack(delivery)
    await other.nothing()
    await dead.counts(1)
    assert await dead.ids() == [first]


@needs("dead_letters")
async def test_all_dead_letters_are_replayed(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    await dead.add(*numbers(0, 3))
    assert await dead.dead_letters.replay(dead.name) == 3
    batch = await member.take(3, within=10)
    assert sorted(payloads(batch)) == numbers(0, 3)
    await member.ack(*batch)
    await dead.counts(0)
    await member.nothing()


@needs("dead_letters")
async def test_dead_letters_that_match_are_replayed_and_purged(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    sent = await dead.fill(
        *(dead.message(b"%d" % n, {wire.PF_ERROR_TYPE: "ABC"[n % 3]}) for n in range(6))
    )
    of_a, of_b = DeadLetterFilter(error_type="A"), DeadLetterFilter(error_type="B")
    assert await dead.dead_letters.replay(dead.name, filter=of_a) == 2
    batch = await member.take(2, within=10)
    assert sorted(payloads(batch)) == [b"0", b"3"]
    await member.ack(*batch)
    await dead.counts(4)
    assert await dead.dead_letters.purge(dead.name, filter=of_b) == 2
    await dead.counts(2)
    assert await dead.ids() == [sent[2], sent[5]]
    await member.nothing()


@needs("dead_letters", "per_key")
async def test_dead_letters_of_one_key_are_replayed_in_order(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic, ordering=Ordering.PER_KEY)
    await dead.fill(*(dead.message(b"%d" % n, key=b"%d" % (n % 3)) for n in range(12)))
    assert await dead.dead_letters.replay(dead.name) == 12
    assert await _order_by_key(member, 12) == {
        b"%d" % key: [b"%d" % n for n in range(key, 12, 3)] for key in range(3)
    }
    await dead.counts(0)


@needs("ordered_replays")
async def test_replays_keep_their_order_beside_new_messages_of_their_keys(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    """With two members: they never hold a key at the same time, even during a replay."""
    members = [
        await harness.join(dead.topic, transport=await harness.connect(), ordering=Ordering.PER_KEY)
        for _ in range(2)
    ]
    await dead.fill(*(dead.message(b"%d" % n, key=b"%d" % (n % 3)) for n in range(12)))

    async def publish() -> None:
        for number in range(100, 160):
            message = harness.message(dead.topic, b"%d" % number, key=b"%d" % (number % 3))
            await harness.publish(message)

    async with at_work(harness, members, 72) as log:
        publishing = asyncio.create_task(publish())
        assert await dead.dead_letters.replay(dead.name) == 12
        await publishing
    for first, stop in ((0, 12), (100, 160)):
        seen = [number for _, number in log if first <= number < stop]
        for key in range(3):
            lane = [number for number in seen if number % 3 == key]
            assert lane == [number for number in range(first, stop) if number % 3 == key]


async def _order_by_key(member: Member, count: int) -> dict[bytes | None, list[bytes]]:
    seen: dict[bytes | None, list[bytes]] = {}
    for _ in range(count):
        (delivery,) = await member.take(1, within=20)
        seen.setdefault(delivery.message.key, []).append(delivery.message.payload or b"")
        await member.ack(delivery)
    return seen


@needs("dead_letters")
async def test_one_that_cannot_be_replayed_is_reported_and_left(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    stranger = await harness.join(harness.topic("strangers"))
    sent = await dead.fill(
        dead.message(b"good 1"),
        dead.message(b"no origin", {wire.PF_ORIGINAL_TOPIC: "", wire.PF_GROUP: ""}),
        dead.message(b"good 2"),
        dead.message(b"forged", {wire.PF_ORIGINAL_TOPIC: harness.topic("strangers")}),
        dead.message(b"of another group", {wire.PF_GROUP: "strangers"}),
        dead.message(b"good 3"),
    )
    with pytest.raises(ReplayError, match="3 replayed, 3 left") as caught:
        await dead.dead_letters.replay(dead.name)
    bad = {sent[1], sent[3], sent[4]}
    assert caught.value.replayed == 3
    assert caught.value.left.keys() == bad
    assert all(isinstance(error, NotReplayableError) for error in caught.value.left.values())
    assert all(id in str(caught.value) for id in bad)
    batch = await member.take(3, within=10)
    assert sorted(payloads(batch)) == [b"good 1", b"good 2", b"good 3"]
    await member.ack(*batch)
    assert {*await dead.ids()} == bad
    with pytest.raises(ReplayError, match="0 replayed, 1 left"):
        await dead.dead_letters.replay(dead.name, [sent[3]], to_origin=True)
    await stranger.nothing()
    await member.nothing()
    assert await dead.dead_letters.purge(dead.name, list(bad)) == 3
    await dead.counts(0)


@needs("dead_letters")
async def test_a_replay_to_the_origin_reaches_every_group(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    groups = harness.group(), harness.group("mailing")
    members = [await harness.join(dead.topic, group) for group in groups]
    (id,) = await dead.add(b"1")
    assert await dead.dead_letters.replay(dead.name, [id], to_origin=True) == 1
    for member in members:
        (delivery,) = await member.take(1, within=10)
        assert delivery.message.id == id
        await member.ack(delivery)
    await dead.counts(0)


@needs("dead_letters", "groups")
async def test_a_group_that_reads_the_dead_letters_leaves_them_where_they_are(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    reader = await harness.join(dead.name, harness.group("reader"), dead_letter_topics=())
    (id,) = await dead.add(b"x")
    (delivery,) = await reader.take(1)
    assert delivery.message.id == id
    await reader.ack(delivery)
    await reader.nothing()
    await dead.counts(1)
    assert await dead.dead_letters.replay(dead.name) == 1
    await dead.counts(0)
