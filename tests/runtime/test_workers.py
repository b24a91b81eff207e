"""Workers: bounded, in order, cancellable one by one; what may kill the process runs alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow.message import Delivery, Message
from protoflow.scheduling.job import Job
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
        self.workers = Workers(limit, self.run, self.crashes.append, self.settled)

    async def settled(self) -> None:
        self.log.append("settled")

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
    bench.workers.close_gate("one")
    bench.workers.close_gate("two")
    await bench.put("a")
    bench.workers.open_gate("one")
    await turns()
    assert bench.log == []
    bench.workers.open_gate("two")
    await turns()
    assert bench.log == ["+a", "-a"]
    await bench.workers.stop()


async def test_what_runs_alone_has_nothing_beside_it() -> None:
    bench = Bench(4)
    bench.hold("a", "killer")
    await bench.put("a")
    bench.workers.put_alone(job("killer"))
    await bench.put("b", "c")
    assert bench.log == ["+a"], "what runs is waited for, and nothing starts"
    bench.gates["a"].set()
    await turns()
    assert bench.log == ["+a", "-a", "settled", "+killer"]
    bench.workers.close_gate("letters")
    bench.workers.open_gate("letters")
    await turns()
    assert bench.log[-1] == "+killer", "a gate that opens lets nothing in beside it"
    bench.gates["killer"].set()
    await turns()
    assert set(bench.log[4:]) == {"-killer", "+b", "-b", "+c", "-c"}
    await bench.workers.stop()


async def test_the_second_chance_goes_backwards() -> None:
    bench = Bench(4)
    for name in ("a", "b", "c"):
        bench.workers.put_alone(job(name), backwards=True)
    bench.workers.wake()
    async with asyncio.timeout(10):
        while "-a" not in bench.log:
            await asyncio.sleep(0.01)
    assert [entry for entry in bench.log if entry[0] == "+"] == ["+c", "+b", "+a"]
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

    bench.workers = Workers(2, run, bench.crashes.append, bench.settled)
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
