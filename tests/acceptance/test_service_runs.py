"""One run of a handler: whatever it does to itself, the next one is untouched."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.handler import Batch
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, Seen, handler, method, sync_handler

needs = pytest.mark.needs

_tenant: contextvars.ContextVar[int | None] = contextvars.ContextVar("tenant", default=None)


class Panic(BaseException):
    """As an extension in another language raises it."""


def _policy(attempts: int, **fields: Any) -> DeliveryPolicy:
    retry = RetryPolicy(max_attempts=attempts, initial_backoff=0.01, max_backoff=0.02, jitter=0.0)
    return DeliveryPolicy(retry=retry, **fields)


@pytest.mark.parametrize("sync", [False, True])
async def test_context_variables_of_one_run_are_not_seen_by_another(
    harness: Harness, sync: bool
) -> None:
    found: list[int | None] = []

    def look(number: int) -> None:
        found.append(_tenant.get())
        _tenant.set(number)

    async def work(task: Any, context: Context) -> None:
        look(task.number)
        await asyncio.sleep(0.001)

    def sync_work(task: Any, context: SyncContext) -> None:
        look(task.number)

    service = sync_handler("Work", sync_work) if sync else handler("Work", work)
    async with harness.running(service):
        await harness.send(*range(48))
        await harness.until(lambda: len(found) >= 48)
    assert set(found) == {None}, "a run saw the variables of another"


@needs("per_key")
async def test_context_variables_are_not_seen_by_the_next_of_the_key(harness: Harness) -> None:
    found: list[int | None] = []

    async def work(task: Any, context: Context) -> None:
        found.append(_tenant.get())
        _tenant.set(task.number)

    async with harness.running(handler("Keyed", work)):
        await harness.send(*range(20), key="k")
        await harness.until(lambda: len(found) >= 20)
    assert set(found) == {None}, "a run saw the variables of another"


async def test_context_variables_of_a_batch_are_not_seen_by_the_next(harness: Harness) -> None:
    found: list[int | None] = []

    async def work(batch: Batch[Any], context: Context) -> None:
        found.append(_tenant.get())
        _tenant.set(1)

    async with harness.running(handler("Bulk", work)):
        for start in range(0, 40, 5):
            await harness.send(*range(start, start + 5))
            await harness.until(partial(lambda count: len(found) > count, start // 5))
    assert set(found) == {None}, "a run saw the variables of another"


@needs("dead_letters", "at_least_once")
@pytest.mark.parametrize("error", [Panic, asyncio.CancelledError])
async def test_any_error_is_a_failed_run(harness: Harness, error: type[BaseException]) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number == 1:
            raise error("index out of bounds")

    async with harness.running(handler("Work", work), policy=_policy(2)) as service:
        await harness.send(1, 2, 3)
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.until(lambda: service.stats()[method("Work")].handled == 2)
        health = service.health()
    assert (health.live, health.ready) == (True, True), health.problems
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "2"
    reported = (
        f"{dead_letter.metadata[wire.PF_ERROR_TYPE]} {dead_letter.metadata[wire.PF_ERROR_MESSAGE]}"
    )
    assert error is not Panic or "Panic" in reported, reported
    assert [attempt for number, attempt in seen.runs if number == 1] == [1, 2]


async def test_a_handler_that_cancels_its_own_task_costs_no_worker(harness: Harness) -> None:
    """Home-made timeouts do so. More of them than there are workers."""
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number < 40:
            running = asyncio.current_task()
            assert running is not None
            running.cancel()
            await asyncio.sleep(10)
        seen.done.append(task.number)

    async with harness.running(handler("Work", work), policy=_policy(1, concurrency=4)) as service:
        await harness.send(*range(40))
        await harness.send(*range(40, 60))
        await harness.until(lambda: len(seen.done) == 20, what="workers died of it")
        await harness.settled(service)
        health = service.health()
        stats = service.stats()[method("Work")]
    assert (health.live, health.ready) == (True, True), health.problems
    assert (stats.handled, stats.failed_runs) == (20, 40)


async def test_a_cancellation_that_a_handler_swallowed_does_not_reach_the_next(
    harness: Harness,
) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number % 2:
            running = asyncio.current_task()
            assert running is not None
            running.cancel()
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                return  # copes, but does not know of uncancel()
        await asyncio.sleep(0.001)
        seen.done.append(task.number)

    policy = _policy(1, concurrency=2)
    async with harness.running(handler("Work", work), policy=policy) as service:
        await harness.send(*range(60))
        await harness.until(lambda: len(seen.done) == 30, what="a later run was cancelled for it")
        await harness.settled(service)
        assert service.health().ready
        assert service.stats()[method("Work")].failed_runs == 0


async def test_a_future_of_others_that_is_cancelled_is_a_failed_run(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        seen.done.append(task.number)

    async with harness.running(handler("Work", work), policy=_policy(1)) as service:
        await harness.send(1, 2)
        await harness.until(lambda: seen.done == [2])
        await harness.until(lambda: service.stats()[method("Work")].failed_runs == 1)
        assert service.health().ready


async def test_a_panic_in_a_batch_harms_no_neighbour(harness: Harness) -> None:
    if not harness.capabilities.at_least_once:
        pytest.skip("capability: at_least_once")
    done: list[int] = []

    async def work(batch: Batch[Any], context: Context) -> None:
        numbers = [task.number for task in batch]
        if 3 in numbers:
            raise Panic
        done.extend(numbers)

    async with harness.running(handler("Bulk", work), policy=_policy(2)) as service:
        await harness.send(*range(10))
        await harness.until(lambda: len(set(done)) == 9)
        await harness.settled(service)
        assert service.health().live
    assert sorted(set(done)) == [number for number in range(10) if number != 3]


async def test_outputs_of_a_run_that_panicked_are_not_published(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def work(task: Any, context: Context) -> Any:
        if task.number == 1:
            raise Panic
        return pb.Done(number=task.number)

    async with harness.running(handler("Transform", work), policy=_policy(1)):
        await harness.send(1, 2)
        messages = await watcher.exactly(1)
    assert pb.Done.FromString(messages[0].payload).number == 2
