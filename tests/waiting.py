"""Tests that wait for nothing outside of this process wait in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from protoflow.scheduling.threads import Threads
from protoflow.testing.virtual_time import VirtualTime


@contextmanager
def virtual() -> Iterator[None]:
    """Within it the running loop jumps to its next timer, and the clocks with it; while a handler
    runs in a thread, they stand still."""
    running: list[asyncio.Future[Any]] = []
    run = Threads.run

    def counted(threads: Threads, call: Callable[[], Any]) -> asyncio.Future[Any]:
        future = run(threads, call)
        running.append(future)
        future.add_done_callback(running.remove)
        return future

    virtual_time = VirtualTime(busy=lambda: bool(running))
    wall = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Threads, "run", counted)
        patch.setattr(time, "time", lambda: wall + virtual_time.elapsed)
        patch.setattr(time, "monotonic", virtual_time.time)
        patch.setattr(time, "perf_counter", virtual_time.time)
        virtual_time.install()
        try:
            yield
        finally:
            virtual_time.remove()


def run_virtually(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` on a loop that jumps to its next timer; clocks stay as they are."""

    async def run() -> None:
        time_here = VirtualTime()
        time_here.install()
        try:
            await main
        finally:
            time_here.remove()

    asyncio.run(run())
