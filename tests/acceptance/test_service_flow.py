"""In flight is bounded; what is slow stops only itself; thousands pass and none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy
from protoflow.outcomes import RetryAfter

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, Seen, handler, method

needs = pytest.mark.needs


class Gate:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.done = 0
        self._open = asyncio.Event()

    async def handle(self, task: Any, context: Context) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        self.done += 1

    def open(self) -> None:
        self._open.set()


async def test_no_more_handlers_run_at_once_than_allowed(harness: Harness) -> None:
    gate = Gate()
    policy = DeliveryPolicy(concurrency=3)
    async with harness.running(handler("Work", gate.handle), policy=policy):
        await harness.send(*range(20))
        await harness.until(lambda: gate.waiting == 3)
        await harness.quiet(0.2)
        assert gate.most == 3
        gate.open()
        await harness.until(lambda: gate.done == 20)
    assert gate.most == 3


async def test_no_more_is_in_flight_than_the_count_allows(harness: Harness) -> None:
    gate = Gate()
    policy = DeliveryPolicy(concurrency=2)
    async with harness.running(
        handler("Work", gate.handle), policy=policy, max_in_flight=8
    ) as service:
        (scheduler,) = service.subscriptions
        await harness.send(*range(50))
        await harness.until(lambda: gate.waiting == 2)
        await harness.quiet(0.2)
        assert scheduler.in_flight.count <= 8
        gate.open()
        await harness.until(lambda: gate.done == 50)
        assert scheduler.in_flight.most <= 8


async def test_no_more_is_in_flight_than_the_bytes_allow(harness: Harness) -> None:
    gate = Gate()
    policy = DeliveryPolicy(concurrency=2)
    async with harness.running(
        handler("Work", gate.handle), policy=policy, max_in_flight_bytes=30_000
    ) as service:
        (scheduler,) = service.subscriptions
        await harness.send(*range(20), blob=bytes(10_000))
        await harness.until(lambda: gate.waiting >= 1)
        await harness.quiet(0.2)
        assert 0 < scheduler.in_flight.count <= 3
        assert scheduler.in_flight.bytes <= 45_000
        gate.open()
        await harness.until(lambda: gate.done == 20)
        await harness.settled(service)
        assert scheduler.in_flight.bytes == 0


async def test_a_message_larger_than_the_bound_of_bytes_passes_alone(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok), max_in_flight_bytes=1000):
        await harness.send(1, 2, 3, blob=bytes(5000))
        await seen.until(3)


async def test_every_handler_that_may_run_does_when_the_bounds_are_tight(harness: Harness) -> None:
    gate = Gate()
    policy = DeliveryPolicy(concurrency=8)
    async with harness.running(handler("Work", gate.handle), policy=policy, max_in_flight=8):
        await harness.send(*range(7))
        await harness.until(lambda: gate.waiting == 7)
        await harness.send(*range(7, 10))
        await harness.until(lambda: gate.waiting == 8)
        gate.open()
        await harness.until(lambda: gate.done == 10)


async def test_a_slow_handler_stops_no_other_subscription(harness: Harness) -> None:
    gate, audit = Gate(), Seen(harness)
    policy = DeliveryPolicy(concurrency=1)
    async with harness.running(
        handler("Work", gate.handle), handler("Audit", audit.ok), policy=policy, max_in_flight=64
    ):
        await harness.send(*range(40))
        await audit.until(40)
        assert gate.done == 0
        gate.open()
        await harness.until(lambda: gate.done == 40)


@needs("at_least_once")
async def test_waiting_retries_count_as_in_flight(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if context.attempt == 1:
            raise RetryAfter(0.3)

    async with harness.running(handler("Work", work), max_in_flight=4) as service:
        await harness.send(*range(12))
        await harness.until(lambda: seen.attempts.count(2) == 12, within=20)
        assert service.subscriptions[0].in_flight.most <= 4


async def test_a_subscription_can_be_paused_and_resumed(harness: Harness) -> None:
    work, audit = Seen(harness), Seen(harness)
    async with harness.running(handler("Work", work.ok), handler("Audit", audit.ok)) as service:
        service.pause(method("Work"))
        await harness.send(*range(5))
        await audit.until(5)
        await harness.quiet()
        assert work.runs == []
        service.resume(f"{harness.physical('tasks')}/{harness.physical('workers')}")
        await work.until(5)


async def test_ten_thousand_messages_pass_and_none_is_lost(harness: Harness) -> None:
    # With a request for each message, fewer are enough.
    count = 2_000 if harness.target.confirms_when_settled else 10_000
    got: Counter[int] = Counter()

    async def work(task: Any, context: Context) -> None:
        got[task.number] += 1
        if task.number % 1000 == 0 and context.attempt == 1 and harness.capabilities.at_least_once:
            raise ValueError("once in a thousand")

    async with harness.running(
        handler("Work", work), policy=DeliveryPolicy(concurrency=64)
    ) as service:
        for start in range(0, count, 500):
            await harness.producer.publish_task_many(
                pb.Task(number=number, key=str(number % 97)) for number in range(start, start + 500)
            )
        await harness.until(lambda: len(got) == count, within=60)
        await harness.settled(service, within=30)
        stats = service.stats()[method("Work")]
        assert stats.handled == count
        assert (stats.lost, stats.unknown, stats.dead_lettered) == (0, 0, 0)
        assert service.subscriptions[0].in_flight.most <= 16 * 64
    retried = {number for number, times in got.items() if times > 1}
    assert retried == (set(range(0, count, 1000)) if harness.capabilities.at_least_once else set())
    assert max(got.values()) <= 2


@needs("lag")
async def test_the_lag_of_a_group_is_known(harness: Harness) -> None:
    seen = Seen(harness)
    await harness.prepare(handler("Work", seen.ok))
    await harness.send(*range(7))
    topic, group = harness.physical("tasks"), harness.physical("workers")
    assert (await harness.transport.lag(topic, group)).messages == 7  # type: ignore[attr-defined]
    async with harness.running(handler("Work", seen.ok)) as service:
        await seen.until(7)
        await harness.settled(service)
    assert (await harness.transport.lag(topic, group)).messages == 0  # type: ignore[attr-defined]
