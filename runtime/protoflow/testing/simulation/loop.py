"""An event loop in virtual time, without sockets and threads."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar, TypeVarTuple, Unpack

from protoflow.testing.simulation.process import Process, current, discard

T = TypeVar("T")
_Ts = TypeVarTuple("_Ts")

#: Callbacks without progress of time after which the loop reports an endless loop.
_MOST_WITHOUT_TIME = 1_000_000
_BITS = (1 << 64) - 1


class Stuck(RuntimeError):  # noqa: N818  what happened
    """Nothing can ever run again, or time does not advance."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order in which they became ready, then jumps to the next timer.

    Args:
        seed: chooses between timers that are due at the same time.
        duration: chooses how long a function in a thread takes, in seconds.
    """

    task_class: type[asyncio.Task[Any]] = asyncio.Task

    def __init__(self, seed: int, duration: Callable[[], float]) -> None:
        super().__init__()
        self.now = 0.0
        self._ready: deque[Any] = deque()  # Any: parts of handles are not public
        self._tie = seed * 2654435761 & _BITS
        self._duration = duration
        self._timers: list[tuple[float, int, int, asyncio.Handle]] = []
        self._count = 0
        self._idle = 0
        #: Tasks that `finally` blocks make while the loop finishes; they never begin.
        self._late: list[asyncio.Task[Any]] | None = None

    @property
    def protoflow_process(self) -> object:
        """Returns an object that identifies the process of the running code."""
        return current.get() or self

    def time(self) -> float:
        """Returns the virtual time."""
        return self.now

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop`."""
        handle = SoonHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        handle = LaterHandle(when, callback, args, self, context)
        self._count += 1
        self._tie = (self._tie * 6364136223846793005 + 1442695040888963407) & _BITS
        heappush(self._timers, (when, self._tie, self._count, handle))
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
        """Makes a task that belongs to the process whose code is running."""
        task: asyncio.Task[Any] = self.task_class(coro, loop=self, name="task", context=context)
        if self._late is not None:
            self._late.append(task)
        process = current.get() if context is None else context.get(current)
        if process is not None:
            process.tasks.append(task)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[_Ts]], T], *args: *_Ts
    ) -> asyncio.Future[T]:
        """Calls the function at once; its result arrives after a time that the seed chooses."""
        future: asyncio.Future[T] = self.create_future()
        answer: Callable[[], None]
        try:
            answer = partial(future.set_result, func(*args))
        except Exception as error:
            answer = partial(future.set_exception, error)
        self.call_later(self._duration(), lambda: None if future.done() else answer())
        return future

    def run_until(self, task: asyncio.Future[Any]) -> None:
        """Runs until the task is done. Raises Stuck if it can never be done."""
        previous = events._get_running_loop()
        events._set_running_loop(self)
        done = task.done
        try:
            while not done():
                self._turn()
        finally:
            events._set_running_loop(previous)

    def finish(self, processes: list[Process]) -> None:
        """Discards everything that would still run."""
        self._ready.clear()
        self._timers.clear()
        for process in processes:
            process.alive = False
        previous = events._get_running_loop()
        events._set_running_loop(self)
        late = self._late = []
        try:
            for process in processes:
                discard(process.take_tasks())
            while late:
                discard([late.pop()])
        finally:
            events._set_running_loop(previous)
        self._ready.clear()
        self._timers.clear()
        self.close()

    def _advance(self) -> None:
        """Counts callbacks that run without progress of time."""
        self._idle += len(self._ready)
        if self._idle > _MOST_WITHOUT_TIME:
            raise Stuck(f"time stands still at {self.now:.6f} s: something never waits")

    def _jump(self) -> None:
        """Advances time to the next timer when nothing is ready."""
        timers = self._timers
        self._idle = 0
        while timers and timers[0][3]._cancelled:
            heappop(timers)
        if not timers:
            raise Stuck("everything waits, and nothing will ever happen")
        if timers[0][0] > self.now:
            self.now = timers[0][0]

    def _turn(self) -> None:
        """Runs the callbacks that are ready or due.

        Callbacks of dead processes are dropped; those of paused processes wait.
        """
        ready, timers, of = self._ready, self._timers, current
        self._advance() if ready else self._jump()
        now = self.now
        while timers and timers[0][0] <= now:
            due = heappop(timers)[3]
            if not due._cancelled:
                ready.append(due)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            context = handle._context
            process = context.get(of)
            if process is not None and (not process.alive or process.resumes > now):
                self._keep_back(process, handle)
                continue
            try:
                context.run(handle._callback, *handle._args)
            except (Exception, asyncio.CancelledError) as error:
                self.call_exception_handler(
                    {"message": "error in a callback", "exception": error, "handle": handle}
                )  # other exceptions, such as a test's timeout, end the simulation

    def _keep_back(self, process: Process, handle: asyncio.Handle) -> None:
        if process.alive:
            self._count += 1
            # The number keeps the order in which the callbacks became ready.
            heappush(self._timers, (process.resumes, -1, self._count, handle))

    def _write_to_self(self) -> None:
        """Does nothing: no other thread could wake the loop."""

    def _process_events(self, event_list: Any) -> None:
        """Does nothing: there are no sockets."""

    async def create_connection(self, *_args: Any, **_kwargs: Any) -> Any:
        """Raises, because a simulation has no network."""
        raise RuntimeError("a simulated service opened a connection; give it a fake instead")

    create_server = create_datagram_endpoint = getaddrinfo = create_connection


def start(
    loop: SimulatedLoop, coroutine: Coroutine[Any, Any, T], process: Process | None
) -> asyncio.Task[T]:
    """Starts a coroutine as a task of a process."""
    context = contextvars.Context()
    context.run(current.set, process)
    return loop.create_task(coroutine, context=context)


async def until(condition: Callable[[], bool], pause: float) -> None:
    """Waits until a condition holds; checking again takes no real time."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(pause)


class SoonHandle(asyncio.Handle):
    """A handle without the debugging data of asyncio: a seed makes five thousand handles."""

    __slots__ = ()
    _source_traceback = None  # `asyncio.Handle.__repr__` reads it

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop, context: contextvars.Context | None,
    ) -> None:  # fmt: skip
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._repr = None

    def cancel(self) -> None:
        """See `asyncio.Handle`."""
        self._cancelled = True


class LaterHandle(asyncio.TimerHandle):
    """A timer handle of this kind; a cancelled one is dropped when it is due."""

    __slots__ = ()
    _source_traceback = None  # `asyncio.Handle.__repr__` reads it

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop, context: contextvars.Context | None,
    ) -> None:  # fmt: skip
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        """See `asyncio.Handle`."""
        self._cancelled = True
        self._args = ()  # frees arguments that may be large


#: The context of code that runs outside of processes.
OUTSIDE = contextvars.Context()
