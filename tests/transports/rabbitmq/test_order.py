"""One consumer for each ordered shard of RabbitMQ: who it is, how it changes, and that it heals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from protoflow.contract.spec import Ordering
from protoflow.message import Settlement
from protoflow.transport import Availability, Transport
from protoflow.transports.rabbitmq.transport import RabbitMQTransport

from tests.transports.rabbitmq.harness import Harness, Member, payloads

pytestmark = pytest.mark.timeout(90)


def kill(transport: Transport) -> None:
    """Ends a transport as the death of its process would: without a word to the broker."""
    assert isinstance(transport, RabbitMQTransport)
    tasks = [subscription._supervisor._task for subscription in transport._subscriptions] + [
        transport._publisher._supervisor
    ]
    transport._subscriptions.clear()
    for link in (transport._in, transport._out):
        tasks.append(link._supervisor._task)
        link._running = False
        if link._connection is not None:
            link._connection.abort()
    for task in tasks:
        if task is not None:
            task.cancel()


async def until(condition: Callable[[], Any], *, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def ordered(harness: Harness, topic: str, **options: Any) -> Member:
    transport = await harness.connect(**options)
    return await harness.join(topic, transport=transport, ordering=Ordering.PER_KEY)


class TestHealing:
    """A channel that ends while its connection lives is no reason to stand still."""

    async def test_a_run_beyond_max_hold(self, harness: Harness) -> None:
        topic = harness.topic()
        member = await ordered(harness, topic, max_hold=1.0)
        await harness.send(topic, b"0", b"1", key=b"k")
        taken = await member.take(2)
        await until(lambda: member.listener.lost == taken)
        again = await member.take(2)
        assert payloads(again) == [b"0", b"1"]
        await member.ack(*again)

    @pytest.mark.parametrize("which", ["queue", "lock-0"])
    async def test_a_queue_that_was_deleted(
        self,
        harness: Harness,
        native: AbstractChannel,
        which: str,
    ) -> None:
        topic = harness.topic()
        member = await ordered(harness, topic)
        name = f"protoflow/{topic}/billing"
        await native.queue_delete(name if which == "queue" else f"{name}/{which}")
        await until(lambda: member.listener.healthy[-2:] == [False, True])
        await harness.send(topic, b"x", key=b"k")
        assert payloads(await member.take(1)) == [b"x"]
        assert member.listener.healthy == [False, True]  # edges only

    async def test_the_locks_message_was_purged_while_nobody_ran(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        member = await ordered(harness, topic)
        await member.subscription.stop()
        await native.queue_purge(f"protoflow/{topic}/billing/lock-0")
        await harness.send(topic, b"x", key=b"k")
        again = await ordered(harness, topic)
        assert payloads(await again.take(1)) == [b"x"]


class TestOwners:
    async def test_another_process_takes_over_when_the_owner_dies(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        transport = await harness.connect()
        first = await harness.join(topic, transport=transport, ordering=Ordering.PER_KEY)
        second = await ordered(harness, topic)
        await harness.send(topic, *(b"%d" % number for number in range(50)), key=b"k")
        taken = await first.take(20)
        await first.ack(*taken[:5])
        await second.nothing()
        assert isinstance(second.subscription, Availability)
        assert await second.subscription.available() == 0
        kill(transport)
        again = await second.take(45)
        assert payloads(again) == [b"%d" % number for number in range(5, 50)]
        await second.ack(*again)

    async def test_a_lock_is_renewed_and_stays_where_it_is(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        first = await ordered(harness, topic, max_hold=2.0)
        second = await ordered(harness, topic, max_hold=2.0)
        for number in range(6):
            await harness.send(topic, b"%d" % number, key=b"k")
            (delivery,) = await first.take(1)
            await first.ack(delivery)
            await second.nothing(0.3)
        assert (first.listener.healthy, second.listener.healthy) == ([], [])

    async def test_nothing_is_consumed_beside_a_process_without_order(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        old = await harness.join(topic, transport=await harness.connect())
        new = await ordered(harness, topic)
        await harness.send(topic, b"0", key=b"k")
        (held,) = await old.take(1)
        await harness.send(topic, b"1", key=b"k")
        await new.nothing(0.5)
        await old.subscription.settle([Settlement(held)])
        await old.subscription.stop()
        assert payloads(await new.take(1)) == [b"1"]
