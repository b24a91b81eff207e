"""The deadlines of a shutdown: `shutdown_timeout` bounds everything that closing does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

#: Of the whole time this share is kept for closing connections, in seconds at most.
_CLOSING_SHARE = 0.1
_MOST_CLOSING = 2.0
#: What is late already gets so many seconds all the same, to close what closes at once.
_LEAST = 0.2


class Stoppable(Protocol):
    """A subscription that runs."""

    async def stop(self, seconds: float) -> None:
        """Drains and leaves, within so many seconds if the broker answers."""


class Shutdown:
    """One shutdown. Its time runs from when it is made.

    Args:
        seconds: for everything.
        log: where it is said what was not closed in time.
    """

    def __init__(self, seconds: float, log: logging.Logger) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._end = self._loop.time() + seconds
        self._log = log

    async def drain(self, subscriptions: Sequence[Stoppable]) -> None:
        """Stops subscriptions, all at once."""
        seconds = self._seconds - min(_MOST_CLOSING, self._seconds * _CLOSING_SHARE)
        end = self._loop.time() + max(seconds, _LEAST)
        tasks = [
            asyncio.ensure_future(subscription.stop(seconds)) for subscription in subscriptions
        ]
        if not tasks:
            return
        _done, late = await asyncio.wait(tasks, timeout=end + _LEAST - self._loop.time())
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
        """Closes something in this task, and cancels that when the time is over."""
        try:
            async with asyncio.timeout_at(max(self._end, self._loop.time() + _LEAST)):
                await close()
        except TimeoutError:
            self._log.error(
                "a component was not closed in time",
                extra={"component": what, "seconds": self._seconds},
            )
