"""Bounds the requests to a registry that cannot be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, TypeVar

from protoflow.errors import SchemaRegistryError
from protoflow.transport.kit.backoff import Backoff

T = TypeVar("T")

_FIRST_WAIT: Final = 0.25
_SHORTEST_PAUSE: Final = 0.05


class Requests:
    """Sends equal requests once, and none while the registry cannot be reached.

    After a request that the registry did not answer, further requests fail at once until a wait
    is over. The wait doubles with each failure.

    Args:
        longest_wait: the longest wait in seconds.
        random: returns a number from 0 up to 1.
    """

    def __init__(self, longest_wait: float, random: Callable[[], float]) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._backoff = Backoff(_FIRST_WAIT, longest_wait, random)
        self._down: str | None = None
        self._down_until = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next request is sent."""
        return max(self._down_until - time.monotonic(), _SHORTEST_PAUSE)

    async def once(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Awaits the running work with this key, or new work. A caller that is cancelled does not
        cancel it for the others."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(make())
            task.add_done_callback(lambda done: self._ended(key, done))
        answer: T = await asyncio.shield(task)
        return answer

    async def send(self, request: Coroutine[Any, Any, T]) -> T:
        """Sends a request, unless the registry could not be reached a moment ago.

        Raises:
            SchemaRegistryError: the request failed, or the last one.
        """
        if self._down is not None and time.monotonic() < self._down_until:
            request.close()  # it would warn that nobody awaited it
            # not the same error again, whose traceback would grow with each
            raise SchemaRegistryError(self._down, temporary=True)
        try:
            answer = await request
        except SchemaRegistryError as error:
            if error.temporary:
                self._down = str(error)
                now = time.monotonic()
                if now >= self._down_until:  # requests that fail together are one failure
                    self._down_until = now + self._backoff.next()
            else:
                self._works()
            raise
        self._works()
        return answer

    def _works(self) -> None:
        self._down, self._down_until = None, 0.0
        self._backoff.reset()

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # every caller may have been cancelled, so none reads it
