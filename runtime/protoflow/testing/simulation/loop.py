"""An event loop in virtual time, without sockets and threads."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

from protoflow.testing.simulation.process import Process, current

T = TypeVar("T")
_Ts = TypeVarTuple("_Ts")

#: Callbacks after which a run without progress of time is taken for an endless loop.
_MOST_WITHOUT_TIME = 1_000_000
_BITS = (1 << 64) - 1


class Stuck(RuntimeError):  # noqa: N818  what happened
    """Nothing is left that could ever run, or time stands still."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is ready in the order in which it became so, then jumps to the next timer.

    Args:
        seed: chooses between timers that are due at the same time.
        duration: chooses how long a function in a thread takes, in seconds.
    """

    def __init__(self, seed: int, duration: Callable[[], float]) -> None:
        super().__init__()
        self.now = 0.0
        self._tie = seed * 2654435761 & _BITS
        self._duration = duration
        self._timers: list[tuple[float, int, int, asyncio.Handle]] = []
        self._count = 0
        self._idle = 0

    @property
    def protoflow_process(self) -> object:
        """What stands for the process of the running code."""
        return current.get() or self

    def time(self) -> float:
        """The virtual time."""
        return self.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        self._tie = (self._tie * 6364136223846793005 + 1442695040888963407) & _BITS
        heapq.heappush(self._timers, (when, self._tie, self._count, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_kwargs: Any,
    ) -> asyncio.Task[Any]:
        """Makes a task of the process in whose context it runs."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name="task", context=context)
        process = current.get() if context is None else context.get(current)
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(process.tasks.pop, context=context)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[_Ts]], T], *args: *_Ts
    ) -> asyncio.Future[T]:
        """Calls the function at once; its result comes after a time that the seed chooses."""
        future: asyncio.Future[T] = self.create_future()
        answer: Callable[[], None]
        try:
            answer = partial(future.set_result, func(*args))
        except Exception as error:
            answer = partial(future.set_exception, error)
        self.call_later(self._duration(), lambda: None if future.done() else answer())
        return future

    def run_until(self, task: asyncio.Future[Any]) -> None:
        """Runs until the task is done. Raises Stuck where it never will be."""
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while not task.done():
                self._turn()
        finally:
            events._set_running_loop(previous)

    def finish(self, processes: list[Process]) -> None:
        """Forgets everything that would still run."""
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        for process in processes:
            process.alive = False
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for process in processes:
                process.discard()
        finally:
            events._set_running_loop(previous)
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        self.close()

    def _turn(self) -> None:
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        if ready:
            self._idle += len(ready)
            if self._idle > _MOST_WITHOUT_TIME:
                raise Stuck(f"time stands still at {self.now:.6f} s: something never waits")
        else:
            self._idle = 0
            while timers and timers[0][3]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("everything waits, and nothing will ever happen")
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[3]
            if not handle._cancelled:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(current)
            if process is None or self._may_run(process, handle):
                handle._run()

    def _may_run(self, process: Process, handle: asyncio.Handle) -> bool:
        """Whether it runs now: not for the dead, later for those that stand still."""
        if process.alive and process.resumes > self.now:
            self._count += 1
            # Behind one another, in the order in which they became ready.
            heapq.heappush(self._timers, (process.resumes, -1, self._count, handle))
            return False
        return process.alive

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are left out when they come up."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    async def create_connection(self, *_args: Any, **_kwargs: Any) -> Any:
        """Raises: there is no network in a simulation."""
        raise RuntimeError("a simulated service opened a connection; give it a fake instead")

    create_server = create_datagram_endpoint = getaddrinfo = create_connection


def start(
    loop: SimulatedLoop, coroutine: Coroutine[Any, Any, T], process: Process | None
) -> asyncio.Task[T]:
    """Starts a coroutine in the name of a process."""
    context = contextvars.Context()
    context.run(current.set, process)
    return loop.create_task(coroutine, context=context)


async def until(condition: Callable[[], bool], pause: float) -> None:
    """Waits until a condition holds; looking again costs nothing in virtual time."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(pause)


#: The context of what happens outside of processes.
OUTSIDE = contextvars.Context()
