"""Order holds where it is promised: under concurrency, retries, failures and restarts."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from functools import partial
from typing import Any

import pytest
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.outcomes import RetryAfter, Unprocessable
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, Seen, handler, sync_handler

needs = pytest.mark.needs


class Ledger:
    """A handler that keeps book of keys, and trips over two of one key at once."""

    def __init__(self, *, failing: float = 0.0, seconds: float = 0.004) -> None:
        self.order: dict[str, list[int]] = defaultdict(list)
        self.overlaps: list[str] = []
        self.busiest = 0
        self._running: set[str] = set()
        self._failing = failing
        self._seconds = seconds
        self._random = random.Random(7)

    async def handle(self, task: Any, context: Context) -> None:
        if task.key in self._running:
            self.overlaps.append(f"{task.key}:{task.number}")
        self._running.add(task.key)
        self.busiest = max(self.busiest, len(self._running))
        try:
            await asyncio.sleep(self._random.random() * self._seconds)
            if self._random.random() < self._failing:
                raise ValueError("at random")
            self.order[task.key].append(task.number)
        finally:
            self._running.discard(task.key)

    @property
    def handled(self) -> int:
        return sum(map(len, self.order.values()))


ALWAYS = DeliveryPolicy(
    retry=RetryPolicy(max_attempts=100, initial_backoff=0.005, max_backoff=0.02, jitter=1.0)
)


async def publish(harness: Harness, count: int, keys: int) -> None:
    """Numbers in order, each with its key."""
    batch = [pb.Task(number=number, key=f"k{number % keys}") for number in range(count)]
    for start in range(0, count, 50):
        await harness.producer.publish_task_many(batch[start : start + 50])


def expected(count: int, keys: int) -> dict[str, list[int]]:
    return {f"k{key}": list(range(key, count, keys)) for key in range(keys)}


@needs("per_key", "at_least_once")
async def test_each_key_in_order_under_concurrency_with_random_failures(harness: Harness) -> None:
    ledger = Ledger(failing=0.2)
    async with harness.running(handler("Keyed", ledger.handle), policy=ALWAYS):
        await publish(harness, 300, 10)
        await harness.until(lambda: ledger.handled >= 300, within=30)
        await harness.quiet(0.1)
    assert ledger.overlaps == []
    assert ledger.order == expected(300, 10)
    assert ledger.busiest > 1, "keys should be handled side by side"


@needs("per_key", "at_least_once")
async def test_each_key_in_order_over_two_services_of_a_group(harness: Harness) -> None:
    harness.require("groups")
    ledger = Ledger(failing=0.1)
    async with (
        harness.running(handler("Keyed", ledger.handle), policy=ALWAYS),
        harness.running(handler("Keyed", ledger.handle), policy=ALWAYS),
    ):
        await publish(harness, 200, 8)
        await harness.until(lambda: ledger.handled >= 200, within=40)
        await harness.quiet(0.1)
    assert ledger.overlaps == []
    assert ledger.order == expected(200, 8)


@needs("per_key", "at_least_once")
async def test_each_key_in_order_while_members_come_and_go(harness: Harness) -> None:
    ledger = Ledger(failing=0.05, seconds=0.01)
    await harness.prepare(handler("Keyed", ledger.handle), policy=ALWAYS)
    await publish(harness, 200, 8)
    async with harness.running(handler("Keyed", ledger.handle), policy=ALWAYS):
        for _ in range(2):
            before = ledger.handled
            async with harness.running(handler("Keyed", ledger.handle), policy=ALWAYS):
                await harness.until(
                    partial(lambda count: ledger.handled >= count, min(200, before + 20)), within=30
                )
        await harness.until(
            lambda: len({n for o in ledger.order.values() for n in o}) == 200, within=40
        )
    assert ledger.overlaps == []
    for key, numbers in expected(200, 8).items():
        firsts = list(dict.fromkeys(ledger.order[key]))
        assert firsts == numbers


@needs("per_key", "at_least_once")
async def test_order_holds_over_a_restart_in_the_middle(harness: Harness) -> None:
    ledger = Ledger(failing=0.1)
    await harness.prepare(handler("Keyed", ledger.handle), policy=ALWAYS)
    await publish(harness, 150, 5)
    async with harness.running(handler("Keyed", ledger.handle), policy=ALWAYS):
        await harness.until(lambda: ledger.handled >= 40, within=30)
    async with harness.running(handler("Keyed", ledger.handle), policy=ALWAYS):
        await harness.until(lambda: ledger.handled >= 150, within=30)
        await harness.quiet(0.1)
    assert ledger.overlaps == []
    assert ledger.order == expected(150, 5)


@needs("per_key", "at_least_once")
async def test_a_message_that_waits_holds_its_key_and_no_other(harness: Harness) -> None:
    seen = Seen(harness)
    waiting = True

    async def work(task: Any, context: Context) -> None:
        if task.number == 0 and waiting:
            raise RetryAfter(0.05)
        seen.note(task, context)

    async with harness.running(handler("Keyed", work), policy=ALWAYS):
        await harness.send(0, 1, 2, key="a")
        await harness.send(10, 11, 12, key="b")
        await seen.until(3)
        await harness.quiet(0.1)
        assert sorted(seen.numbers) == [10, 11, 12]
        waiting = False
        await seen.until(6)
    assert [number for number in seen.numbers if number < 10] == [0, 1, 2]


@needs("per_key", "dead_letters")
async def test_a_dead_letter_is_a_hole_in_its_keys_order(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        if task.number == 1:
            raise Unprocessable("this one never")
        seen.note(task, context)

    async with harness.running(handler("Keyed", work)):
        await harness.send(0, 1, 2, 3, key="k")
        await seen.until(3)
        await harness.dead_letter_messages(1, harness.dead_letter_topic("tasks", "keyed"))
    assert seen.numbers == [0, 2, 3]


@needs("per_key")
async def test_messages_without_key_wait_for_nobody(harness: Harness) -> None:
    at_once = 0
    most = 0

    async def work(task: Any, context: Context) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05 * harness.patience)
        at_once -= 1

    async with harness.running(handler("Keyed", work)) as service:
        await harness.send(*range(16))
        await harness.until(lambda: most >= 4)
        await harness.settled(service)


@needs("per_key")
async def test_handlers_in_threads_keep_the_order_too(harness: Harness) -> None:
    order: dict[str, list[int]] = defaultdict(list)

    def work(task: Any, context: SyncContext) -> None:
        order[task.key].append(task.number)

    async with harness.running(sync_handler("Keyed", work)):
        await publish(harness, 60, 4)
        await harness.until(lambda: sum(map(len, order.values())) == 60, within=20)
    assert order == expected(60, 4)


@needs("per_partition", "at_least_once")
async def test_a_partition_is_handled_one_at_a_time_and_in_order(harness: Harness) -> None:
    shards: dict[object, list[int]] = defaultdict(list)
    running: set[object] = set()
    overlaps = []
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        shard = context.delivery.shard
        if shard in running:
            overlaps.append(task.number)
        running.add(shard)
        try:
            await asyncio.sleep(0.002)
            if context.attempt == 1 and task.number % 7 == 0:
                raise ValueError("once")
            shards[shard].append(task.number)
            seen.note(task, context)
        finally:
            running.discard(shard)

    async with harness.running(handler("Parted", work), policy=ALWAYS):
        await publish(harness, 60, 3)
        await seen.until(60, within=30)
    assert overlaps == []
    assert all(numbers == sorted(numbers) for numbers in shards.values())
    assert sorted(seen.numbers) == list(range(60))


@needs("per_partition", "at_least_once")
async def test_a_slow_handler_stops_its_partition_and_no_other_subscription(
    harness: Harness,
) -> None:
    gate = asyncio.Event()
    audit = Seen(harness)

    async def slow(task: Any, context: Context) -> None:
        await gate.wait()

    async with harness.running(handler("Parted", slow), handler("Audit", audit.ok)):
        await publish(harness, 20, 2)
        await audit.until(20)
        gate.set()


@needs("per_key", "at_least_once")
async def test_ordering_may_be_strengthened_by_config(harness: Harness) -> None:
    from protoflow.contract.spec import Ordering

    ledger = Ledger(failing=0.1)
    policy = DeliveryPolicy(ordering=Ordering.PER_KEY, retry=ALWAYS.retry)
    async with harness.running(handler("Work", ledger.handle), policy=policy):
        await publish(harness, 100, 5)
        await harness.until(lambda: ledger.handled >= 100, within=30)
    assert ledger.overlaps == []
    assert ledger.order == expected(100, 5)
