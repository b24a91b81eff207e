"""Workers: bounded, in order, cancellable one by one; what may kill the process runs alone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any

import pytest
from protoflow.message import Delivery, Message
from protoflow.scheduling.job import Job
from protoflow.scheduling.readiness import Gates
from protoflow.scheduling.workers import Workers


def job(name: str) -> Job:
    message = Message(id=name, topic="t", payload=b"")
    route: Any = None
    return Job(Delivery(message=message), message, route, None)


class Harness:
    """Runs that end on request."""

    def __init__(self, limit: int) -> None:
        self.log: list[str] = []
        self.most = 0
        self.crashes: list[BaseException] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, BaseException] = {}
        self.closed = Gates()
        self.workers = Workers(limit, self.run, self.crashes.append, self.closed)

    async def run(self, work: Any) -> None:
        name = work.message.id
        self.log.append(f"+{name}")
        self.most = max(self.most, self.workers.running)
        try:
            if (gate := self.gates.get(name)) is not None:
                await gate.wait()
            if (error := self.errors.get(name)) is not None:
                raise error
            self.log.append(f"-{name}")
        except asyncio.CancelledError:
            self.log.append(f"x{name}")
            raise

    def hold(self, *names: str) -> None:
        for name in names:
            self.gates[name] = asyncio.Event()

    async def put(self, *names: str) -> list[Job]:
        jobs = [job(name) for name in names]
        for one in jobs:
            self.workers.put(one)
        self.workers.wake()
        await turns()
        return jobs


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_allowed_and_in_the_order_of_put() -> None:
    harness = Harness(2)
    harness.hold("a", "b", "c")
    await harness.put("a", "b", "c", "d")
    assert harness.log == ["+a", "+b"]
    harness.gates["a"].set()
    await turns()
    assert harness.log == ["+a", "+b", "-a", "+c"]
    harness.gates["b"].set()
    harness.gates["c"].set()
    await turns()
    assert harness.log[-2:] == ["+d", "-d"] or "-d" in harness.log
    assert harness.most == 2
    assert await harness.workers.stop() == []


async def test_nothing_starts_while_a_gate_is_closed() -> None:
    harness = Harness(2)
    harness.closed.close("one")
    harness.closed.close("two")
    await harness.put("a")
    harness.closed.open("one")
    await turns()
    assert harness.log == []
    harness.closed.open("two")
    await turns()
    assert harness.log == ["+a", "-a"]
    await harness.workers.stop()


async def test_what_runs_alone_passes_closed_gates_and_can_be_interrupted() -> None:
    harness = Harness(4)
    harness.closed.close("a suspect runs alone")
    await harness.put("b")
    harness.hold("killer")
    killer = job("killer")
    alone = asyncio.create_task(harness.workers.run_alone(killer))
    await turns()
    assert harness.log == ["+killer"]
    assert harness.workers.busy(lambda one: one is killer)
    assert harness.workers.interrupt(lambda one: one is killer) == [killer]
    await asyncio.wait_for(alone, 5)
    assert harness.log == ["+killer", "xkiller"]
    harness.closed.open("a suspect runs alone")
    await turns()
    assert harness.log[2:] == ["+b", "-b"]
    await harness.workers.stop()


_tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")


async def test_nothing_passes_from_one_message_to_the_next_in_context_variables() -> None:
    seen: list[str | None] = []

    async def run(work: Any) -> None:
        seen.append(_tenant.get(None))
        _tenant.set(work.message.id)
        await asyncio.sleep(0)

    crashes: list[BaseException] = []
    workers = Workers(3, run, crashes.append, Gates())
    for name in map(str, range(20)):
        workers.put(job(name))
    workers.wake()
    await turns(200)
    assert seen == [None] * 20
    assert crashes == []
    await workers.stop()


async def test_a_worker_outlives_a_handler_that_cancels_its_own_task() -> None:
    ran: list[str] = []

    async def run(work: Any) -> None:
        ran.append(work.message.id)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if len(ran) % 2:  # cancelled within the run, or after it
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    crashes: list[BaseException] = []
    workers = Workers(2, run, crashes.append, Gates())
    for name in map(str, range(20)):
        workers.put(job(name))
    workers.wake()
    await turns(300)
    assert ran == [str(number) for number in range(20)]
    await workers.stop()


async def test_after_standing_still_nothing_that_was_ready_starts() -> None:
    harness = Harness(2)
    given_back: list[str] = []
    still = True

    def give_up() -> None:
        nonlocal still
        still = False
        given_back.extend(one.message.id for one in harness.workers.take(lambda _one: True))

    harness.workers = Workers(
        2, harness.run, harness.crashes.append, Gates(), lambda: still, give_up
    )
    await harness.put("a", "b")
    assert (harness.log, given_back) == ([], ["a", "b"])
    await harness.put("c")
    assert harness.log == ["+c", "-c"]
    await harness.workers.stop()


async def test_an_interrupted_run_is_cancelled_and_its_worker_goes_on() -> None:
    harness = Harness(1)
    harness.hold("a")
    (first,) = await harness.put("a")
    await harness.put("b")
    assert harness.workers.interrupt(lambda one: one is first) == [first]
    await turns()
    assert harness.log == ["+a", "xa", "+b", "-b"]
    assert not harness.workers.busy()
    await harness.workers.stop()


async def test_what_has_not_started_can_be_taken_out() -> None:
    harness = Harness(1)
    harness.hold("a")
    await harness.put("a")
    jobs = await harness.put("b", "c", "d")
    assert harness.workers.take(lambda one: one is jobs[1]) == [jobs[1]]
    harness.gates["a"].set()
    await turns()
    assert [entry for entry in harness.log if entry[0] == "+"] == ["+a", "+b", "+d"]
    await harness.workers.stop()


async def test_quiet_waits_for_what_runs_and_not_for_ever() -> None:
    harness = Harness(2)
    harness.hold("a")
    (one,) = await harness.put("a")
    assert await harness.workers.quiet(lambda _: True, 0.01) is False
    assert await harness.workers.quiet(lambda other: other is not one, 0.01) is True
    asyncio.get_running_loop().call_later(0.01, harness.gates["a"].set)
    assert await harness.workers.quiet(lambda _: True, 5.0) is True
    await harness.workers.stop()


async def test_stop_cancels_and_names_what_does_not_end() -> None:
    harness = Harness(2)
    stubborn = job("stubborn")
    release = asyncio.Event()

    async def run(work: Any) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    harness.workers = Workers(2, run, harness.crashes.append, Gates())
    harness.workers.put(stubborn)
    harness.workers.wake()
    await turns()
    assert await harness.workers.stop(patience=0.05) == [stubborn]
    release.set()
    await turns()


async def test_a_dead_worker_is_reported_of() -> None:
    harness = Harness(2)
    harness.errors["a"] = KeyError("bug")
    await harness.put("a")
    await turns()
    assert [type(error) for error in harness.crashes] == [KeyError]
    with pytest.raises(KeyError):
        raise harness.crashes[0]
    await harness.workers.stop()


async def test_other_tasks_get_their_turn_between_many_short_runs() -> None:
    harness = Harness(1)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for number in range(1000):
        harness.workers.put(job(str(number)))
    harness.workers.wake()
    async with asyncio.timeout(10):
        while "-999" not in harness.log:
            await asyncio.sleep(0)
    ticking.cancel()
    assert ticks > 20
    await harness.workers.stop()
