"""Threads for handlers that are plain functions.

They are daemon threads, so a hanging handler does not keep the process alive. With the executor of
the standard library it would.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `limit` threads, started when needed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._idle = 0
        self._queued = 0
        self._lock = threading.Lock()
        self._futures: set[asyncio.Future[Any]] = set()
        #: The number of running calls; virtual time does not advance during them.
        self.busy = 0

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Calls a function in a thread. Cancelling the future does not stop the call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        self.busy += 1
        # The correlation id and the current span are available in the thread, too.
        inside = contextvars.copy_context()

        def finish(result: Any, error: BaseException | None) -> None:
            self.busy -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = inside.run(call)
            except StopIteration as stop:  # a future cannot hold this exception
                error = RuntimeError(f"StopIteration: {stop}")
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits
                loop.call_soon_threadsafe(finish, result, error)

        with self._lock:
            self._queued += 1
            if self._queued > self._idle and self._started < self._limit:
                self._started += 1
                threading.Thread(target=self._serve, name="protoflow-handler", daemon=True).start()
        self._jobs.put(work)
        return future

    def call_on_loop(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
        """Calls a function on the event loop, from one of the threads, and waits for it."""

        async def on_loop() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), loop).result()

    def close(self) -> None:
        """Lets idle threads end; no caller waits for calls that still run."""
        for future in tuple(self._futures):
            future.cancel()
        with self._lock:
            for _ in range(self._started):
                self._jobs.put(None)
            self._started = 0

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
                self._queued -= job is not None
            if job is None:
                return
            job()
