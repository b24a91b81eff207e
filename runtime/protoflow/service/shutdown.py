"""The deadlines of a shutdown: `shutdown_timeout` bounds all closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

#: This share of the whole time, at most this many seconds, is kept to close connections.
_CLOSING_SHARE = 0.1
_MOST_CLOSING = 2.0
#: Late components still get this many seconds, enough for those that close at once.
_LEAST = 0.2


class Stoppable(Protocol):
    """A running subscription."""

    async def stop(self, seconds: float) -> None:
        """Drains and leaves, within this many seconds if the broker answers."""


class Shutdown:
    """One shutdown. Its time starts when the object is created.

    Args:
        seconds: the time for the whole shutdown.
        log: gets a record for each component that was not closed in time.
    """

    def __init__(self, seconds: float, log: logging.Logger) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._end = self._loop.time() + seconds
        self._log = log

    async def drain(self, subscriptions: Sequence[Stoppable]) -> None:
        """Stops all subscriptions concurrently."""
        seconds = self._seconds - min(_MOST_CLOSING, self._seconds * _CLOSING_SHARE)
        end = self._loop.time() + max(seconds, _LEAST)
        tasks = [
            asyncio.ensure_future(subscription.stop(seconds)) for subscription in subscriptions
        ]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=end + _LEAST - self._loop.time())
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
        if late:
            self._log.error(
                "subscriptions did not stop in time; the broker redelivers unsettled messages",
                extra={"subscriptions": len(late), "seconds": self._seconds},
            )
            await asyncio.wait(late, timeout=_LEAST)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self._log.error("stopping a subscription failed", extra={"error": repr(error)})

    async def close(self, what: str, close: Callable[[], Awaitable[object]]) -> None:
        """Closes a component in this task; the closing is cancelled when the time is over."""
        try:
            async with asyncio.timeout_at(max(self._end, self._loop.time() + _LEAST)):
                await close()
        except TimeoutError:
            self._log.error(
                "a component was not closed in time",
                extra={"component": what, "seconds": self._seconds},
            )
