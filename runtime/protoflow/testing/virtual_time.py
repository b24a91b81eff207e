"""Virtual time: the loop jumps to the next timer when nothing is ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from protoflow.clock import Clock

#: Real seconds for which the loop waits for threads before it checks again.
_GLANCE = 0.01
#: The start of virtual time, in seconds since the epoch: 2026-01-01 UTC.
START = 1767225600.0


class VirtualTime:
    """Makes the time of the running loop virtual: it jumps when nothing is ready.

    While a thread works for the loop (synchronous handlers, `asyncio.to_thread`), time does not
    advance.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.SelectorEventLoop):
            raise RuntimeError(
                f"virtual time needs asyncio's own selector loop, not {type(loop).__name__}; "
                "run the test on it, or pass virtual_time=False"
            )
        self.elapsed = 0.0
        self._loop: Any = cast("Any", loop)  # its attributes are replaced
        self._busy = busy
        self._threads = 0
        self._started = loop.time()
        self._select = self._loop._selector.select
        self._run_in_executor = loop.run_in_executor

    def install(self) -> None:
        """Makes time virtual."""
        self._loop.time = self.time
        self._loop._selector.select = self._jump
        self._loop.run_in_executor = self._counted

    def remove(self) -> None:
        """Makes time real again. Timers that were set in virtual time then fire at wrong times."""
        for owner, name in (
            (self._loop, "time"),
            (self._loop._selector, "select"),
            (self._loop, "run_in_executor"),
        ):
            delattr(owner, name)

    def time(self) -> float:
        """The loop's time."""
        return self._started + self.elapsed

    def _jump(self, timeout: float | None = None) -> Any:
        ready = self._select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._threads or self._busy():
            return self._select(_GLANCE)
        if timeout is None:
            return self._select(None)
        self.elapsed += timeout
        return ready

    def _counted(self, executor: Any, call: Any, *args: Any) -> Any:
        future = self._run_in_executor(executor, call, *args)
        self._threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _future: object) -> None:
        self._threads -= 1


class VirtualClock(Clock):
    """The clock that belongs to virtual time; its randomness is the same in every run."""

    virtual = True

    def __init__(self, time: VirtualTime, seed: int = 0) -> None:
        self._time = time
        self._random = random.Random(seed)  # noqa: S311  tests want it repeatable

    def now(self) -> float:
        """Returns virtual seconds since the epoch, starting on 2026-01-01."""
        return START + self._time.elapsed

    def monotonic(self) -> float:
        """The loop's virtual time."""
        return self._time.time()

    def random(self) -> float:
        """Returns the next number of a seeded sequence."""
        return self._random.random()
