"""The simulated loop: virtual time, crashes, threads without threads."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest
from protoflow import ids
from protoflow.testing.simulation.determinism import determined
from protoflow.testing.simulation.loop import SimulatedLoop, Stuck, start
from protoflow.testing.simulation.process import Process, discard


def run(main: Callable[[SimulatedLoop], Awaitable[None]]) -> SimulatedLoop:
    loop = SimulatedLoop(7, lambda: 0.5)

    async def body() -> None:
        await main(loop)

    task = start(loop, body(), None)
    loop.run_until(task)
    loop.finish([])
    task.result()
    return loop


def test_time_jumps_and_callbacks_keep_their_order() -> None:
    seen: list[int] = []

    async def main(loop: SimulatedLoop) -> None:
        for number in range(5):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(3600)

    assert run(main).now == 3600
    assert seen == [0, 1, 2, 3, 4]


def test_a_crash_runs_no_finally() -> None:
    seen: list[str] = []

    async def main(loop: SimulatedLoop) -> None:
        process = Process("billing", 1)

        async def work() -> None:
            try:
                seen.append("began")
                await asyncio.sleep(10)
                seen.append("ended")
            finally:
                seen.append("finally")

        start(loop, work(), process)
        await asyncio.sleep(5)
        process.alive = False
        await asyncio.sleep(100)
        assert seen == ["began"]
        discard(process.take_tasks())

    run(main)


def test_a_process_that_stands_still_goes_on_later() -> None:
    async def main(loop: SimulatedLoop) -> None:
        process, woke = Process("billing", 1), []

        async def work() -> None:
            await asyncio.sleep(10)
            woke.append(loop.now)

        start(loop, work(), process)
        await asyncio.sleep(5)
        process.resumes = 42.0
        await asyncio.sleep(100)
        assert woke == [42.0]

    run(main)


def test_a_thread_takes_virtual_time_and_no_thread() -> None:
    async def main(loop: SimulatedLoop) -> None:
        assert await loop.run_in_executor(None, lambda: 6 * 7) == 42
        assert loop.now == 0.5
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)

    run(main)


def test_there_is_no_network() -> None:
    async def main(loop: SimulatedLoop) -> None:
        with pytest.raises(RuntimeError, match="give it a fake"):
            await asyncio.open_connection("localhost", 80)

    run(main)


def test_what_waits_for_ever_is_reported() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await loop.create_future()

    loop = SimulatedLoop(7, lambda: 0.5)
    process = Process("billing", 1)
    task = start(loop, _waits(main, loop), process)
    with pytest.raises(Stuck, match="nothing will ever happen"):
        loop.run_until(task)
    loop.finish([process])


async def _waits(main: Callable[[SimulatedLoop], Awaitable[None]], loop: SimulatedLoop) -> None:
    await main(loop)


def test_time_ids_and_randomness_follow_the_seed_and_come_back() -> None:
    def sample(seed: int) -> list[object]:
        with determined(seed, lambda: 5.0):
            return [time.time(), uuid.uuid4(), random.random(), os.urandom(4), ids.new_id()]

    before = random.getstate()
    assert sample(1) == sample(1)
    assert sample(1)[1:] != sample(2)[1:]
    assert random.getstate() == before
    assert time.time() > 1767225600.0 + 3600
