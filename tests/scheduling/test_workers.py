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


class Bench:
    """Runs that end when told."""

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
    bench = Bench(2)
    bench.hold("a", "b", "c")
    await bench.put("a", "b", "c", "d")
    assert bench.log == ["+a", "+b"]
    bench.gates["a"].set()
    await turns()
    assert bench.log == ["+a", "+b", "-a", "+c"]
    bench.gates["b"].set()
    bench.gates["c"].set()
    await turns()
    assert bench.log[-2:] == ["+d", "-d"] or "-d" in bench.log
    assert bench.most == 2
    assert await bench.workers.stop() == []


async def test_nothing_starts_while_a_gate_is_closed() -> None:
    bench = Bench(2)
    bench.closed.close("one")
    bench.closed.close("two")
    await bench.put("a")
    bench.closed.open("one")
    await turns()
    assert bench.log == []
    bench.closed.open("two")
    await turns()
    assert bench.log == ["+a", "-a"]
    await bench.workers.stop()


async def test_what_runs_alone_passes_closed_gates_and_can_be_interrupted() -> None:
    bench = Bench(4)
    bench.closed.close("a suspect runs alone")
    await bench.put("b")
    bench.hold("killer")
    killer = job("killer")
    alone = asyncio.create_task(bench.workers.run_alone(killer))
    await turns()
    assert bench.log == ["+killer"]
    assert bench.workers.busy(lambda one: one is killer)
    assert bench.workers.interrupt(lambda one: one is killer) == [killer]
    await asyncio.wait_for(alone, 5)
    assert bench.log == ["+killer", "xkiller"]
    bench.closed.open("a suspect runs alone")
    await turns()
    assert bench.log[2:] == ["+b", "-b"]
    await bench.workers.stop()


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
    bench = Bench(2)
    given_back: list[str] = []
    still = True

    def give_up() -> None:
        nonlocal still
        still = False
        given_back.extend(one.message.id for one in bench.workers.take(lambda _one: True))

    bench.workers = Workers(2, bench.run, bench.crashes.append, Gates(), lambda: still, give_up)
    await bench.put("a", "b")
    assert (bench.log, given_back) == ([], ["a", "b"])
    await bench.put("c")
    assert bench.log == ["+c", "-c"]
    await bench.workers.stop()


async def test_an_interrupted_run_is_cancelled_and_its_worker_goes_on() -> None:
    bench = Bench(1)
    bench.hold("a")
    (first,) = await bench.put("a")
    await bench.put("b")
    assert bench.workers.interrupt(lambda one: one is first) == [first]
    await turns()
    assert bench.log == ["+a", "xa", "+b", "-b"]
    assert not bench.workers.busy()
    await bench.workers.stop()


async def test_what_has_not_started_can_be_taken_out() -> None:
    bench = Bench(1)
    bench.hold("a")
    await bench.put("a")
    jobs = await bench.put("b", "c", "d")
    assert bench.workers.take(lambda one: one is jobs[1]) == [jobs[1]]
    bench.gates["a"].set()
    await turns()
    assert [entry for entry in bench.log if entry[0] == "+"] == ["+a", "+b", "+d"]
    await bench.workers.stop()


async def test_quiet_waits_for_what_runs_and_not_for_ever() -> None:
    bench = Bench(2)
    bench.hold("a")
    (one,) = await bench.put("a")
    assert await bench.workers.quiet(lambda _: True, 0.01) is False
    assert await bench.workers.quiet(lambda other: other is not one, 0.01) is True
    asyncio.get_running_loop().call_later(0.01, bench.gates["a"].set)
    assert await bench.workers.quiet(lambda _: True, 5.0) is True
    await bench.workers.stop()


async def test_stop_cancels_and_names_what_does_not_end() -> None:
    bench = Bench(2)
    stubborn = job("stubborn")
    release = asyncio.Event()

    async def run(work: Any) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    bench.workers = Workers(2, run, bench.crashes.append, Gates())
    bench.workers.put(stubborn)
    bench.workers.wake()
    await turns()
    assert await bench.workers.stop(patience=0.05) == [stubborn]
    release.set()
    await turns()


async def test_a_dead_worker_is_told_of() -> None:
    bench = Bench(2)
    bench.errors["a"] = KeyError("bug")
    await bench.put("a")
    await turns()
    assert [type(error) for error in bench.crashes] == [KeyError]
    with pytest.raises(KeyError):
        raise bench.crashes[0]
    await bench.workers.stop()


async def test_other_tasks_get_their_turn_between_many_short_runs() -> None:
    bench = Bench(1)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for number in range(1000):
        bench.workers.put(job(str(number)))
    bench.workers.wake()
    async with asyncio.timeout(10):
        while "-999" not in bench.log:
            await asyncio.sleep(0)
    ticking.cancel()
    assert ticks > 20
    await bench.workers.stop()
