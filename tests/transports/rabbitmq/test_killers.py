"""Start marks on RabbitMQ: only what ran alone when its process died has one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport import Subscription, Topology, TopologyMode
from protoflow.transports.rabbitmq.subscription import RabbitMQSubscription
from protoflow.transports.rabbitmq.transport import RabbitMQTransport

from tests.transports.rabbitmq.harness import Harness, Listener, Member, payloads
from tests.transports.rabbitmq.test_order import kill, until

pytestmark = pytest.mark.timeout(90)


class Asked(Listener):
    """A listener that counts how often suspects were reported."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def suspects_waiting(self) -> None:
        self.asked += 1


class Process:
    """A process of the group."""

    def __init__(self, transport: RabbitMQTransport, member: Member, listener: Asked) -> None:
        self.transport = transport
        self.member = member
        self.listener = listener

    @classmethod
    async def start(cls, harness: Harness, topic: str, **fields: Any) -> Process:
        transport = await harness.connect(**fields.pop("options", {}))
        assert isinstance(transport, RabbitMQTransport)
        settings = harness.settings(topic, **fields)
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        listener = Asked()
        subscription = await transport.subscribe(settings, listener)
        return cls(transport, Member(harness, subscription, listener), listener)

    @property
    def subscription(self) -> RabbitMQSubscription:
        subscription: Subscription = self.member.subscription
        assert isinstance(subscription, RabbitMQSubscription)
        return subscription

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int]:
        found = await self.subscription.isolate(delivery)
        assert found is not None
        return found

    def die(self) -> None:
        kill(self.transport)


class TestUnordered:
    async def test_two_deaths_alone_are_two_marks(self, harness: Harness) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        assert process.transport.capabilities.proves_killers
        assert process.listener.asked == 0
        await harness.send(topic, b"killer", b"innocent")
        killer, innocent = await process.member.take(2)
        alone, found = await process.isolate(killer)
        for marks in range(3):
            assert (alone.message.payload, found) == (b"killer", marks)
            assert (alone.message.topic, alone.suspect, alone.own_place) == (topic, True, True)
            await process.subscription.mark(alone)
            if marks < 2:
                process.die()
                process = await Process.start(harness, topic)
                assert process.listener.asked == 1
                alone, found = await process.isolate(None)
        # Proved: it is dead-lettered without a run.
        assert await process.member.settle(Settlement(alone)) == [SettleResult.DONE]
        assert await process.subscription.isolate(None) is None
        again = await process.member.take(1)
        assert payloads(again) == [b"innocent"]
        assert innocent.message.id == again[0].message.id

    @pytest.mark.parametrize("action", [Action.RELEASE, Action.NACK])
    async def test_an_end_in_order_leaves_no_mark(
        self,
        harness: Harness,
        action: Action,
    ) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        await harness.send(topic, b"long")
        (delivery,) = await process.member.take(1)
        for number in range(3):
            alone, marks = await process.isolate(delivery)
            assert marks == 0
            await process.subscription.mark(alone)
            await process.subscription.clear(alone)
            given_back = Settlement(alone, action, 0.0, number + 1, 7.0)
            assert await process.member.settle(given_back) == [SettleResult.DONE]
            assert await process.member.settle(given_back) == [SettleResult.LOST]
            (delivery,) = await process.member.take(1)
            assert (delivery.own_place, delivery.suspect) == (True, False)
            assert delivery.message.metadata["pf_attempt"] == str(number + 1)
        await process.member.ack(delivery)

    async def test_stopping_while_it_is_held_leaves_no_mark(self, harness: Harness) -> None:
        topic = harness.topic()
        await bench_send_and_hold(harness, topic)
        process = await Process.start(harness, topic)
        (delivery,) = await process.member.take(1)
        _, marks = await process.isolate(delivery)
        assert marks == 0

    async def test_marks_are_written_though_others_wait_before(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        await harness.send(topic, *(b"%d" % number for number in range(4)))
        first, *others = await process.member.take(4)
        alone, _ = await process.isolate(first)
        for other in others:
            await process.subscription.isolate(other)
        await process.transport.close()
        process = await Process.start(harness, topic)
        seen: list[bytes] = []
        for _ in range(4):
            found = await process.subscription.isolate(None)
            if found is None:
                break
            alone, marks = found
            assert marks == 0
            await process.subscription.mark(alone)
            assert await process.isolate(alone) == (alone, 1)
            await process.subscription.clear(alone)
            assert await process.isolate(alone) == (alone, 0)
            await process.member.ack(alone)
            seen += payloads([alone])
        left = await process.member.drain()
        assert {*seen, *payloads(left)} == {b"0", b"1", b"2", b"3"}

    async def test_a_lost_connection_is_no_mark(self, harness: Harness) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        await harness.send(topic, b"x")
        (delivery,) = await process.member.take(1)
        alone, _ = await process.isolate(delivery)
        for _ in range(3):
            await process.subscription.mark(alone)
            asked = process.listener.asked
            connection = process.transport._in._connection
            assert connection is not None
            connection.abort()
            await until(partial(lambda before: process.listener.asked > before, asked))
            assert alone in process.listener.lost
            await until(lambda: process.transport.health() is None)
            assert await process.member.settle(Settlement(alone)) == [SettleResult.LOST]
            alone, marks = await process.isolate(None)
            assert (alone.message.payload, marks) == (b"x", 0)

    async def test_foreign_hop_state_is_not_believed_for_having_been_alone(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        forged = {"pf_group": "billing", "pf_attempt": "99", "pf_due": "9e99", "pf_solo": "x"}
        await harness.publish(harness.message(topic, b"x", metadata=forged, key=b"k"))
        (delivery,) = await process.member.take(1)
        assert not delivery.own_place
        alone, _ = await process.isolate(delivery)
        assert alone.message.metadata["pf_attempt"] == "0"
        assert "pf_due" not in alone.message.metadata
        assert alone.message.key == b"k"

    async def test_what_is_isolated_already_stays(self, harness: Harness) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic)
        await harness.send(topic, b"0", b"1")
        first, second = await process.member.take(2)
        alone, _ = await process.isolate(first)
        assert await process.isolate(alone) == (alone, 0)
        # One is held, so the other is asked for later, and is first then.
        assert await process.member.settle(Settlement(second)) == [SettleResult.DONE]
        assert await process.subscription.isolate(second) is None
        assert await process.member.settle(Settlement(alone)) == [SettleResult.DONE]

    async def test_the_ordering_changes_while_something_is_to_run_alone(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        await bench_send_and_hold(harness, topic)
        process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
        (delivery,) = await process.member.take(1)
        assert delivery.message.payload == b"x"
        await process.member.ack(delivery)


async def bench_send_and_hold(harness: Harness, topic: str) -> None:
    """A process that holds a message of the solo queue, and stops."""
    process = await Process.start(harness, topic)
    await harness.send(topic, b"x")
    (delivery,) = await process.member.take(1)
    await process.isolate(delivery)
    await process.transport.close()


class TestOrdered:
    async def test_two_deaths_alone_are_two_marks_and_nothing_is_moved(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
        await harness.send(topic, b"killer", b"follower", key=b"k")
        killer, follower = await process.member.take(2)
        for marks in range(3):
            assert (killer.suspect, follower.suspect) == (marks > 0, False)
            assert await process.isolate(killer) == (killer, marks)
            assert await process.isolate(follower) == (follower, 0)
            if marks < 2:
                await process.subscription.mark(killer)
                process.die()
                process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
                killer, follower = await process.member.take(2, within=10)
        await process.subscription.clear(killer)
        await process.member.ack(killer)
        process.die()
        process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
        (follower,) = await process.member.take(1, within=10)
        assert (follower.message.payload, follower.suspect) == (b"follower", False)

    @pytest.mark.parametrize("flap", [False, True])
    async def test_an_end_while_the_process_lives_leaves_no_mark(
        self,
        harness: Harness,
        flap: bool,
    ) -> None:
        topic = harness.topic()
        process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
        await harness.send(topic, b"long", key=b"k")
        (delivery,) = await process.member.take(1)
        await process.subscription.mark(delivery)
        await process.subscription.mark(delivery)
        assert await process.isolate(delivery) == (delivery, 2)
        if flap:
            connection = process.transport._in._connection
            assert connection is not None
            connection.abort()
            await until(lambda: process.listener.healthy == [False, True])
            (delivery,) = await process.member.take(1)
        await process.subscription.clear(delivery)
        assert await process.isolate(delivery) == (delivery, 0)
        process.die()
        process = await Process.start(harness, topic, ordering=Ordering.PER_KEY)
        (delivery,) = await process.member.take(1, within=10)
        assert await process.isolate(delivery) == (delivery, 0)
        assert not delivery.suspect


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_a_mark_whose_writing_was_cut_off_ends_with_the_process(
    harness: Harness,
    ordering: Ordering,
    turns: int,
) -> None:
    """A process that ends in order may cancel what writes a mark: the message is no killer."""
    topic = harness.topic()
    member = await harness.join(topic, ordering=ordering)
    await harness.send(topic, b"innocent", key=b"k")
    (delivery,) = await member.take(1)
    delivery, marks = await member.isolated(delivery)
    assert marks == 0
    assert isinstance(member.subscription, RabbitMQSubscription)
    marking = asyncio.ensure_future(member.subscription.mark(delivery))
    for _ in range(turns):
        await asyncio.sleep(0.001)
    marking.cancel()
    await asyncio.wait([marking])
    await member.subscription.stop()
    member = await harness.join(topic, ordering=ordering)
    delivery, marks = await member.isolated()
    assert payloads([delivery]) == [b"innocent"]
    assert marks == 0
    await member.ack(delivery)
