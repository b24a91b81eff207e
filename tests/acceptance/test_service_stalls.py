"""Readiness: quiet is no stall, and a stall is not quiet.

All situations of a kind run at once, each in a namespace of its own, so the whole takes as long
as one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.message import Delivery, Settlement
from protoflow.outcomes import RetryAfter
from protoflow.service import Service
from protoflow.sync_context import SyncContext
from protoflow.transport import Subscription

from tests.acceptance.contract import pb
from tests.acceptance.faulty import Faulty, topic_fails
from tests.acceptance.harness import Harness, Seen, handler, method, sync_handler, task_metadata
from tests.acceptance.targets import Target

needs = pytest.mark.needs
pytestmark = [needs("at_least_once"), pytest.mark.timeout(180)]

STALL_AFTER = 1.5
#: The watchdog looks once a second; what is unconfirmed has 10 s.
QUIET = 4.5
RED_WITHIN = 20.0
_LONG = DeliveryPolicy(retry=RetryPolicy(max_attempts=5, initial_backoff=60.0, max_backoff=60.0))

Situation = Callable[[Harness, AsyncExitStack], Awaitable[Service]]


async def _start(
    harness: Harness, stack: AsyncExitStack, *handlers: Any, **settings: Any
) -> Service:
    settings = {"stall_after": STALL_AFTER, "shutdown_timeout": 0.2, **settings}
    return await stack.enter_async_context(harness.running(*handlers, **settings))


@asynccontextmanager
async def _harnesses(
    target: Target, directory: Path, names: Collection[str]
) -> AsyncIterator[list[Harness]]:
    """A harness for each situation; memory and files of their own where there is no server."""
    async with AsyncExitStack() as stack:
        harnesses = []
        for name in names:
            place = directory / name
            place.mkdir()
            url = target.fresh_url(place)
            if url is None:
                pytest.skip(f"broker: {target.broker}")
            harness = Harness(target, url, place)
            await harness.open()
            stack.push_async_callback(harness.close)
            harnesses.append(harness)
        yield harnesses


# Quiet and healthy.


async def nothing_ever_came(harness: Harness, stack: AsyncExitStack) -> Service:
    return await _start(harness, stack, handler("Work", Seen(harness).ok))


async def everything_is_done(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    service = await _start(harness, stack, handler("Work", seen.ok))
    await harness.send(*range(20))
    await seen.until(20)
    return service


async def a_long_run(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(60)

    service = await _start(harness, stack, handler("Work", work))
    await harness.send(1)
    await seen.until(1)
    return service


async def a_long_run_in_a_thread(harness: Harness, stack: AsyncExitStack) -> Service:
    import time

    begun = []

    def work(task: Any, context: SyncContext) -> None:
        begun.append(task.number)
        time.sleep(QUIET + 1)

    service = await _start(harness, stack, sync_handler("Work", work))
    await harness.send(1)
    await harness.until(lambda: begun)
    return service


async def more_waits_than_may_be_in_flight(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(60)

    service = await _start(harness, stack, handler("Work", work), max_in_flight=1)
    await harness.send(*range(10))
    await seen.until(1)
    return service


async def slow_runs_one_at_a_time(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(1.0)

    policy = DeliveryPolicy(concurrency=1)
    service = await _start(harness, stack, handler("Work", work), policy=policy)
    await harness.send(*range(50))
    await seen.until(1)
    return service


async def a_retry_waits_in_memory(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    settings: dict[str, Any] = {"policy": _LONG, "retry_in_place": 100.0}
    service = await _start(harness, stack, handler("Work", seen.fails), **settings)
    await harness.send(1)
    await seen.until(1)
    return service


async def a_retry_waits_at_the_broker(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    settings: dict[str, Any] = {"policy": _LONG, "retry_in_place": 0.1}
    service = await _start(harness, stack, handler("Work", seen.fails), **settings)
    await harness.send(1)
    await seen.until(1)
    return service


async def a_key_waits_and_its_followers_with_it(harness: Harness, stack: AsyncExitStack) -> Service:
    if not harness.capabilities.per_key:
        return await nothing_ever_came(harness, stack)
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        raise RetryAfter(30)

    settings: dict[str, Any] = {"retry_in_place": 100.0}
    service = await _start(harness, stack, handler("Keyed", work), **settings)
    await harness.send(*range(10), key="k")
    await seen.until(1)
    return service


async def paused_by_a_person(harness: Harness, stack: AsyncExitStack) -> Service:
    service = await _start(harness, stack, handler("Work", Seen(harness).ok))
    service.pause(method("Work"))
    await harness.send(*range(10))
    return service


async def a_delayed_message(harness: Harness, stack: AsyncExitStack) -> Service:
    service = await _start(harness, stack, handler("Work", Seen(harness).ok))
    if harness.capabilities.delayed_publish:
        await harness.producer.publish_task(pb.Task(number=1), delay=timedelta(seconds=60))
    return service


async def a_backlog_of_another_group(harness: Harness, stack: AsyncExitStack) -> Service:
    await harness.prepare(handler("Audit", Seen(harness).ok))
    seen = Seen(harness)
    service = await _start(harness, stack, handler("Work", seen.ok))
    await harness.send(*range(10))
    await seen.until(10)
    return service


async def a_backlog_of_another_topic(harness: Harness, stack: AsyncExitStack) -> Service:
    await harness.prepare(handler("Side", Seen(harness).ok))
    service = await _start(harness, stack, handler("Work", Seen(harness).ok))
    await harness.producer.publish_done_many(pb.Done(number=number) for number in range(5))
    return service


async def another_member_has_it_all(harness: Harness, stack: AsyncExitStack) -> Service:
    """The second member of an ordered group, which may have nothing to own."""
    if not harness.capabilities.per_partition or not harness.capabilities.groups:
        return await nothing_ever_came(harness, stack)
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(60)

    await _start(harness, stack, handler("Parted", work), rebalance_drain=0.2)
    await harness.send(*range(10), key="k")
    await seen.until(1)
    return await _start(harness, stack, handler("Parted", work), rebalance_drain=0.2)


async def dead_letters_lie_there(harness: Harness, stack: AsyncExitStack) -> Service:
    once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    service = await _start(harness, stack, handler("Work", Seen(harness).fails), policy=once)
    await harness.send(*range(5))
    await harness.until(lambda: service.stats()[method("Work")].dead_lettered == 5)
    return service


async def only_types_that_nobody_handles(harness: Harness, stack: AsyncExitStack) -> Service:
    service = await _start(harness, stack, handler("Work", Seen(harness).ok))
    for _ in range(3):
        await harness.publish("tasks", b"x", metadata=task_metadata(ce_type="shop.v1.Other"))
    await harness.until(lambda: service.stats()[method("Work")].unhandled == 3)
    return service


async def no_handlers_at_all(harness: Harness, stack: AsyncExitStack) -> Service:
    return await _start(harness, stack)


HEALTHY: tuple[Situation, ...] = (
    nothing_ever_came, everything_is_done, a_long_run, a_long_run_in_a_thread,
    more_waits_than_may_be_in_flight, slow_runs_one_at_a_time, a_retry_waits_in_memory,
    a_retry_waits_at_the_broker, a_key_waits_and_its_followers_with_it, paused_by_a_person,
    a_delayed_message, a_backlog_of_another_group, a_backlog_of_another_topic,
    another_member_has_it_all, dead_letters_lie_there, only_types_that_nobody_handles,
    no_handlers_at_all,
)  # fmt: skip


async def test_quiet_is_no_stall(harness: Harness, target: Target, tmp_path: Path) -> None:
    names = [situation.__name__ for situation in HEALTHY]
    red: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        harnesses = await stack.enter_async_context(_harnesses(target, tmp_path, names))
        services: list[Service] = []
        for one, situation in zip(harnesses, HEALTHY, strict=True):
            services.append(await situation(one, stack))
        deadline = asyncio.get_running_loop().time() + QUIET
        while asyncio.get_running_loop().time() < deadline:
            for name, service in zip(names, services, strict=True):
                if not (health := service.health()).ready:
                    red.setdefault(name, str(health.problems))
            await asyncio.sleep(0.1)
    assert len(HEALTHY) >= 14
    assert not red, "\n".join(f"{name}: {problems}" for name, problems in red.items())


# Stalls.


class Hanging(Faulty):
    """A transport whose subscriptions stop to move when a test says so."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.hangs = False
        self.ends = False
        self.mute = False
        self.listener: Any = None

    async def subscribe(self, settings: Any, listener: Any) -> Any:
        self.listener = listener
        return _Hanging(self, await super().subscribe(settings, listener))

    def submit(self, messages: Sequence[Any]) -> asyncio.Future[Any]:
        if self.mute:
            return asyncio.get_running_loop().create_future()
        return super().submit(messages)


class _Hanging:
    def __init__(self, outer: Hanging, inner: Subscription) -> None:
        self._outer = outer
        self._inner = inner
        self._stopped = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        if self._outer.ends:
            return ()
        if self._outer.hangs:
            await self._stopped.wait()
            return ()
        return await self._inner.receive(1, max_bytes)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Any]:
        if self._outer.mute:
            return asyncio.get_running_loop().create_future()
        return self._inner.settle(settlements)

    async def stop(self) -> None:
        self._stopped.set()
        await self._inner.stop()


def _hanging(harness: Harness, *handlers: Any, **settings: Any) -> tuple[Service, Hanging]:
    from protoflow.clock import Clock
    from protoflow.connection import transport_for

    config = harness.config(stall_after=STALL_AFTER, shutdown_timeout=0.2, **settings)
    transport = Hanging(transport_for(config, Clock()))
    service = Service(config, transport=transport)
    service.register(*handlers)
    return service, transport


async def it_never_hands_out_anything(harness: Harness, stack: AsyncExitStack) -> Service:
    await harness.prepare(handler("Work", Seen(harness).ok))
    await harness.send(*range(5))
    service, transport = _hanging(harness, handler("Work", Seen(harness).ok))
    transport.hangs = True
    return await stack.enter_async_context(service)


async def it_hands_out_nothing_any_more(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    service, transport = _hanging(harness, handler("Work", seen.ok))
    await stack.enter_async_context(service)
    await harness.send(0)
    await seen.until(1)
    transport.hangs = True
    await harness.send(1)  # the call that waits already brings this one
    await seen.until(2)
    await harness.send(*range(2, 8))
    return service


async def it_hangs_after_it_came_back(harness: Harness, stack: AsyncExitStack) -> Service:
    service = await it_hands_out_nothing_any_more(harness, stack)
    assert isinstance(service.transport, Hanging)
    listener = service.transport.listener
    listener.health_changed(False, "the connection is lost")
    listener.health_changed(True, "")
    return service


async def it_ends_without_a_word(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    service, transport = _hanging(harness, handler("Work", seen.ok))
    await stack.enter_async_context(service)
    transport.ends = True
    await harness.send(0)
    return service


async def settlements_are_never_answered(harness: Harness, stack: AsyncExitStack) -> Service:
    seen = Seen(harness)
    service, transport = _hanging(harness, handler("Work", seen.ok))
    await stack.enter_async_context(service)
    transport.mute = True
    await harness.send(0)
    await seen.until(1)
    return service


async def outputs_are_never_confirmed(harness: Harness, stack: AsyncExitStack) -> Service:
    async def work(task: Any, context: Context) -> Any:
        return pb.Done(number=task.number)

    service, transport = _hanging(harness, handler("Transform", work))
    await stack.enter_async_context(service)
    transport.rule = topic_fails(harness.physical("done"))
    await harness.send(0)
    return service


async def dead_letters_are_not_taken(harness: Harness, stack: AsyncExitStack) -> Service:
    once = {method("Work"): DeliveryPolicy(retry=RetryPolicy(max_attempts=1))}
    service, transport = _hanging(harness, handler("Work", Seen(harness).fails), handlers=once)
    await stack.enter_async_context(service)
    transport.rule = topic_fails(harness.dead_letter_topic())
    await harness.send(0)
    return service


STALLED: tuple[Situation, ...] = (
    it_never_hands_out_anything, it_hands_out_nothing_any_more, it_hangs_after_it_came_back,
    it_ends_without_a_word, settlements_are_never_answered, outputs_are_never_confirmed,
    dead_letters_are_not_taken,
)  # fmt: skip


async def test_a_stall_is_not_quiet(harness: Harness, target: Target, tmp_path: Path) -> None:
    names = [situation.__name__ for situation in STALLED]
    async with AsyncExitStack() as stack:
        harnesses = await stack.enter_async_context(_harnesses(target, tmp_path, names))
        services: list[Service] = []
        for one, situation in zip(harnesses, STALLED, strict=True):
            services.append(await situation(one, stack))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RED_WITHIN
        green = set(names)
        while green and loop.time() < deadline:
            for name, service in zip(names, services, strict=True):
                health = service.health()
                assert health.live, name
                if not health.ready:
                    assert any(health.problems.values()), f"{name}: red without a reason"
                    green.discard(name)
            await asyncio.sleep(0.1)
    assert len(STALLED) >= 6
    assert not green, f"green in a stall: {sorted(green)}"
