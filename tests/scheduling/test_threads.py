"""Threads for plain functions: as many as needed, never waited for at the end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from protoflow.scheduling.threads import Threads


async def test_a_second_call_gets_a_second_thread_even_if_the_first_was_idle() -> None:
    threads = Threads(4)
    await threads.run(lambda: None)
    meet = threading.Barrier(3, timeout=10)
    await asyncio.gather(*(threads.run(meet.wait) for _ in range(3)))
    threads.close()


async def test_no_more_threads_than_allowed() -> None:
    threads = Threads(2)
    running, most = 0, 0
    lock = threading.Lock()
    release = threading.Event()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1

    calls = [threads.run(call) for _ in range(6)]
    await asyncio.sleep(0.05)
    assert running == 2
    release.set()
    await asyncio.gather(*calls)
    assert most == 2
    assert threads.busy == 0
    threads.close()


async def test_results_and_errors_come_back() -> None:
    threads = Threads(1)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    threads.close()


async def test_closing_waits_for_no_call() -> None:
    threads = Threads(1)
    release = threading.Event()
    call = threads.run(lambda: release.wait(10))
    await asyncio.sleep(0.01)
    threads.close()
    with pytest.raises(asyncio.CancelledError):
        await call
    release.set()
