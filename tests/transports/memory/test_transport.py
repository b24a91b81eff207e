"""What is particular about memory."""

from __future__ import annotations

import asyncio

import pytest
from protoflow.clock import Clock
from protoflow.contract.spec import Ordering
from protoflow.errors import CapabilityError, ConfigError, PublishError, PublishRefusedError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.transport import Topology, TopologyMode

from tests.transports.harness import Listener, ack, make, messages, opened, settings, take


class ManualClock(Clock):
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


async def test_without_a_name_it_is_private() -> None:
    async with opened("memory://") as one, opened("memory://") as two:
        subscription = await one.subscribe(settings(), Listener())
        await two.submit(messages(1))
        await one.submit([Message(id="mine", topic="t", payload=b"")])
        (delivery,) = await take(subscription)
        assert delivery.message.id == "mine"


async def test_a_name_is_shared_and_outlives_its_transports() -> None:
    async with opened("memory://shop") as one:
        await one.submit(messages(2))
    async with opened("memory://shop") as two, opened("memory://other") as other:
        subscription = await two.subscribe(settings(), Listener())
        assert len(await take(subscription, 2)) == 2
        assert (await other.lag("t", "g")).messages == 0


async def test_a_publish_beyond_the_bound_is_refused_for_now() -> None:
    async with opened("memory://", options={"max_messages": 3}) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        errors = await transport.submit(messages(5))
        assert [error is None for error in errors] == [True] * 3 + [False] * 2
        assert not isinstance(errors[3], PublishRefusedError)
        assert "max_messages is 3" in str(errors[3])
        await ack(subscription, await take(subscription, 3))
        assert await transport.submit(messages(3)) == [None] * 3


async def test_what_nobody_takes_is_bounded_by_number_and_age() -> None:
    clock = ManualClock()
    options = {"retained_messages": 3, "retention": "10s"}
    async with opened("memory://", options=options, clock=clock) as transport:
        await transport.submit(messages(5))
        subscription = await transport.subscribe(settings(), Listener())
        assert [each.message.id for each in await take(subscription, 3)] == ["m2", "m3", "m4"]
        await transport.submit(messages(1, "u"))
        clock.time += 11
        await transport.submit([Message(id="young", topic="u", payload=b"")])
        subscription = await transport.subscribe(settings("u"), Listener())
        assert [each.message.id for each in await take(subscription)] == ["young"]
        assert (await transport.lag("u", "g")).messages == 1


async def test_a_topic_that_nobody_consumes_is_an_error_where_that_is_wanted() -> None:
    async with opened("memory://", require_subscriber=True) as transport:
        (error,) = await transport.submit(messages(1))
        assert isinstance(error, PublishError)
        assert "no group consumes t" in str(error)
        await transport.subscribe(settings(dead_letter_topics=("t..g..dead",)), Listener())
        assert await transport.submit(messages(1)) == [None]
        assert await transport.submit(messages(1, "t..g..dead")) == [None]


async def test_a_refused_output_undoes_its_settlement() -> None:
    async with opened("memory://?max_message_bytes=100") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(2))
        bad, good = await take(subscription, 2)
        large = Message(id="o", topic="out", payload=bytes(200))
        small = Message(id="o", topic="out", payload=b"")
        results = await subscription.settle(
            [Settlement(bad, outputs=[small, large]), Settlement(good, outputs=[small])]
        )
        assert results == [SettleResult.REFUSED, SettleResult.DONE]
        reader = await transport.subscribe(settings("out"), Listener())
        assert len(await take(reader)) == 1
        assert (await transport.lag("out", "g")).messages == 1
        await ack(subscription, [bad])


async def test_it_has_no_connection() -> None:
    async with opened("memory://") as transport, transport.transaction() as transaction:
        with pytest.raises(CapabilityError, match="no database connection"):
            _ = transaction.connection


async def test_all_mistakes_of_the_options_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make("memory://?max_mesages=1", options={"retention": "long"})
    assert len(caught.value.problems) == 2


async def test_a_broadcast_group_goes_with_its_member() -> None:
    async with opened("memory://") as transport:
        await transport.subscribe(settings(broadcast=True), Listener())
        assert len(transport.broker.topics["t"].groups) == 1
        await transport.close()
        assert not transport.broker.topics["t"].groups


async def test_a_topology_makes_no_group_for_a_broadcast() -> None:
    async with opened("memory://") as transport:
        wanted = Topology(topics=("t",), subscriptions=(settings(broadcast=True),))
        await transport.ensure(wanted, TopologyMode.CREATE)
        assert not transport.broker.topics["t"].groups


async def test_memory_is_freed_when_everything_is_done() -> None:
    async with opened("memory://") as transport:
        subscription = await transport.subscribe(settings(ordering=Ordering.PER_KEY), Listener())
        await transport.submit([*messages(50, key=b"a"), *messages(50), *messages(50, key=b"b")])
        first, *rest = await take(subscription, 150)
        await subscription.settle(
            [
                Settlement(first, Action.NACK, delay=0.01),
                *(Settlement(delivery, Action.RELEASE) for delivery in rest),
            ]
        )
        while (await transport.lag("t", "g")).messages:
            await ack(subscription, await take(subscription))
        group = subscription.group
        assert group.size == 0
        assert list(group.unfinished()) == []
        assert group._lanes == {}


async def test_waking_costs_one_turn_of_the_loop() -> None:
    async with opened("memory://") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(subscription.receive(1, 100))
        await asyncio.sleep(0)
        await transport.submit(messages(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert receiving.done()


async def test_other_threads_and_loops_share_the_broker_of_a_name() -> None:
    """As `connect_sync` beside a service."""

    async def publish(count: int) -> None:
        async with opened("memory://threads") as transport:
            assert await transport.submit(messages(count)) == [None] * count

    async with opened("memory://threads") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(take(subscription, 50))
        await asyncio.sleep(0.05)
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, publish(10)) for _ in range(5)))
        await ack(subscription, await receiving)


async def test_members_on_two_loops_share_the_work() -> None:
    done: list[str] = []

    async def work() -> None:
        async with opened("memory://members") as transport:
            subscription = await transport.subscribe(
                settings(ordering=Ordering.PER_KEY), Listener()
            )
            async with asyncio.timeout(10):
                while len(done) < 200:
                    receiving = asyncio.ensure_future(subscription.receive(3, 1000))
                    await asyncio.wait([receiving], timeout=0.02)
                    receiving.cancel()
                    await asyncio.wait([receiving])
                    if not receiving.cancelled():
                        batch = receiving.result()
                        await ack(subscription, batch)
                        done.extend(each.message.id for each in batch)

    async with opened("memory://members") as transport:
        working = [asyncio.ensure_future(asyncio.to_thread(asyncio.run, work())) for _ in range(3)]
        await asyncio.sleep(0.05)
        for number in range(200):
            await transport.submit(
                [Message(id=str(number), topic="t", payload=b"", key=b"%d" % (number % 5))]
            )
        await asyncio.gather(*working)
    assert sorted(done, key=int) == [str(number) for number in range(200)]


async def test_what_a_loop_held_that_was_closed_is_for_others_with_its_mark() -> None:
    def begin() -> None:
        loop = asyncio.new_event_loop()

        async def run() -> None:
            transport = make("memory://closed")
            await transport.open()
            subscription = await transport.subscribe(settings(), Listener())
            await transport.submit(messages(2))
            first, _ = await take(subscription, 2)
            await subscription.mark(first)

        loop.run_until_complete(run())
        loop.close()

    await asyncio.to_thread(begin)
    async with opened("memory://closed") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        batch = await take(subscription, 2)
        assert [each.suspect for each in batch] == [True, False]
        assert await subscription.isolate(batch[0]) == (batch[0], 1)
        await ack(subscription, batch)


async def test_a_dead_letter_of_the_largest_message_fits() -> None:
    async with opened("memory://?max_message_bytes=100") as transport:
        await transport.subscribe(settings(dead_letter_topics=("t..g..dead",)), Listener())
        large = [Message(id="m", topic=topic, payload=bytes(5000)) for topic in ("t", "t..g..dead")]
        errors = await transport.submit(large)
        assert [error is None for error in errors] == [False, True]


async def test_available_counts_what_this_member_could_claim() -> None:
    async with opened("memory://av") as one, opened("memory://av") as two:
        ordered = settings(ordering=Ordering.PER_KEY)
        first = await one.subscribe(ordered, Listener())
        second = await two.subscribe(ordered, Listener())
        assert await first.available() == 0
        await one.submit([*messages(3, key=b"a"), *messages(2, key=b"b", delay=60.0)])
        assert await first.available() == 3
        (delivery,) = await take(first)
        assert await first.available() == 2
        assert await second.available() == 0, "its key is held by another"
        await ack(first, [delivery])
