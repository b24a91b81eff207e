"""An event loop in a thread of its own, for callers in other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from protoflow.error_codes import NOT_PUBLISHING, OTHER_LOOP
from protoflow.errors import ProtoflowError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads. The thread is a daemon, so it keeps no process alive.

    Args:
        name: the name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        # Without it, a call could reach the loop after its last turn and wait for ever.
        self._lock = threading.Lock()
        self._ended = False
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine in the context of the caller. Raises ProtoflowError if it ended."""
        with self._lock:
            if self._ended:
                coroutine.close()
                raise closed()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs a coroutine and waits for it; an interrupted caller, for example by Ctrl-C, cancels
        it.

        Raises:
            ProtoflowError: the thread ended, or it is the caller.
            TimeoutError: the time is over.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ProtoflowError(
                "called on the event loop of the connection itself, which would wait for ever; "
                "call it in another thread",
                code=OTHER_LOOP,
            )
        future = self.submit(coroutine)
        try:
            return future.result(timeout)
        except CancelledError:
            raise closed() from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function on the event loop, without waiting. Raises ProtoflowError if it
        ended."""
        with self._lock:
            if self._ended:
                raise closed()
            self._loop.call_soon_threadsafe(function, *arguments)

    def end(self) -> None:
        """Cancels what still runs, and ends the thread. It is idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        # The runner cancels tasks at the end, ends asynchronous generators and closes the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


def closed() -> ProtoflowError:
    """Returns the error of a call after the end, or that the end interrupted."""
    return ProtoflowError(
        "not open: the connection was closed; if it was closed during the call, it is unknown "
        "whether the message was published",
        code=NOT_PUBLISHING,
    )
