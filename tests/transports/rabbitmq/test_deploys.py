"""Settings that change between two starts of a group on RabbitMQ, with work under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from protoflow import wire
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import ReplayError, TopologyError
from protoflow.transport import Transport, TransportSettings
from protoflow.transports import create

from tests.transports.rabbitmq.harness import Harness, Member, payloads

pytestmark = pytest.mark.timeout(90)


async def laddered(harness: Harness, *ladder: float) -> Transport:
    """A transport with another ladder; the test's harness closes it."""
    settings = TransportSettings(url=TransportURL.parse(harness.url), ladder=ladder)
    transport = create(settings)
    await transport.open()
    harness._transports.append(transport)
    return transport


async def retry(harness: Harness, member: Member, topic: str, payload: bytes) -> None:
    """A retry under way: published to the only rung."""
    message = harness.message(topic, payload, key=b"k", metadata={wire.PF_ATTEMPT: "2"})
    deferred = member.subscription.defer(message, 1.0)
    assert deferred is not None
    await harness.publish(deferred)


class TestRetriesUnderWay:
    @pytest.mark.parametrize(
        "after",
        [
            {},
            {"ordering": Ordering.PER_KEY, "needs_broker_retry": False},
            {"ordering": Ordering.PER_PARTITION, "needs_broker_retry": False},
            {"needs_broker_retry": False},  # max_attempts 1
            {"dead_letter_topics": ()},
            {"max_in_flight": 1, "concurrency": 1},
        ],
        ids=["ladder", "per_key", "per_partition", "max_attempts", "dead letters", "in flight"],
    )
    async def test_come_back_under_the_new_settings(
        self,
        harness: Harness,
        after: dict[str, Any],
    ) -> None:
        topic = harness.topic()
        before = await laddered(harness, 1.0)
        member = await harness.join(topic, transport=before)
        await retry(harness, member, topic, b"under way")
        await member.subscription.stop()
        again = await harness.join(topic, transport=await laddered(harness, 7.0, 60.0), **after)
        (delivery,) = await again.take(1)
        assert (delivery.message.payload, delivery.own_place) == (b"under way", True)
        assert delivery.message.metadata[wire.PF_ATTEMPT] == "2"
        await again.ack(delivery)
        await again.nothing()

    async def test_come_back_to_their_shard(self, harness: Harness) -> None:
        topic = harness.topic()
        transport = await harness.connect(shards=3)
        member = await harness.join(topic, transport=transport, ordering=Ordering.PER_KEY)
        message = harness.message(topic, b"first", key=b"k")
        await harness.publish(message, transport=transport)
        (first,) = await member.take(1)
        deferred = member.subscription.defer(first.message, 0.0)
        assert deferred is not None
        await harness.publish(deferred, transport=transport)
        (again,) = await member.take(1)
        assert (again.shard, again.own_place) == (first.shard, True)
        await member.ack(first, again)


class TestOrdering:
    async def test_from_ordered_to_unordered_and_back(self, harness: Harness) -> None:
        topic = harness.topic()
        for number, ordering in enumerate(
            (Ordering.PER_KEY, Ordering.NONE, Ordering.PER_PARTITION, Ordering.NONE)
        ):
            member = await harness.join(topic, ordering=ordering)
            await harness.send(topic, b"%d" % number, b"left %d" % number, key=b"k")
            taken = await member.take(2 if number == 0 else 3)
            await member.ack(*taken[:-1])
            await member.subscription.stop()
        member = await harness.join(topic)
        assert payloads(await member.drain()) == [b"left 3"]


class TestShards:
    async def test_another_number_is_refused_with_the_way_to_drain(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic, transport=await harness.connect(shards=2))
        await member.subscription.stop()
        wider = await harness.connect(shards=3)
        with pytest.raises(TopologyError, match=r"restore the option shards.*delete") as reported:
            await harness.join(topic, transport=wider)
        assert f"protoflow/{topic}/billing" in str(reported.value)
        for shard in (0, 1):
            await native.queue_delete(f"protoflow/{topic}/billing/shard-{shard}")
        again = await harness.join(topic, transport=wider, ordering=Ordering.PER_KEY)
        await harness.publish(harness.message(topic, b"x", key=b"k"), transport=wider)
        assert payloads(await again.take(1)) == [b"x"]


class TestDeadLetters:
    @pytest.mark.parametrize("to_origin", [False, True])
    async def test_a_forged_dead_letter_is_left_and_the_others_go(
        self,
        harness: Harness,
        to_origin: bool,
    ) -> None:
        topic, other = harness.topic(), harness.topic("other")
        member, victim = await harness.join(topic), await harness.join(other)
        dead_letters, transport = f"{topic}..billing..dead", harness.transport
        places = [(other, "billing"), (topic, "billing/solo"), (f"protoflow/{other}/billing", "g")]
        for number, (origin, group) in enumerate([*places, (topic, "billing")]):
            metadata = {wire.PF_ORIGINAL_TOPIC: origin, wire.PF_GROUP: group}
            await harness.publish(harness.message(dead_letters, b"%d" % number, metadata=metadata))
        with pytest.raises(ReplayError, match="1 replayed, 3 left"):
            await dead_letters_of(transport).replay(dead_letters, to_origin=to_origin)
        (delivery,) = await member.take(1)
        assert delivery.message.payload == b"3"
        await member.ack(delivery)
        await victim.nothing()
        assert await dead_letters_of(transport).count(dead_letters) == 3
        ids = [
            dead_letter.message.id
            for dead_letter in await dead_letters_of(transport).list(dead_letters)
        ]
        with pytest.raises(ReplayError, match="are in another topic"):
            await dead_letters_of(transport).replay(dead_letters, ids[:1], to_origin=to_origin)

    async def test_replays_of_the_brokers_own_dead_letters_believe_nothing(
        self,
        harness: Harness,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("protoflow.transports.rabbitmq.planner.DELIVERY_LIMIT", 1)
        topic = harness.topic()
        dead_letters, transport = f"{topic}..billing..dead", harness.transport
        forged = {wire.PF_GROUP: "billing", wire.PF_ATTEMPT: "99"}
        for hand_out in range(2):
            member = await harness.join(topic)
            if hand_out == 0:
                await harness.publish(harness.message(topic, b"x", metadata=forged))
            await member.take(1)
            await member.subscription.stop()
        async with asyncio.timeout(20):
            while not await dead_letters_of(transport).count(dead_letters):
                await asyncio.sleep(0.05)
        assert await dead_letters_of(transport).replay(dead_letters) == 1
        member = await harness.join(topic)
        (delivery,) = await member.take(1)
        assert delivery.own_place
        assert wire.PF_ATTEMPT not in delivery.message.metadata
        await member.ack(delivery)
