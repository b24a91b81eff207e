"""Wakes the reader while it waits for records."""

from __future__ import annotations

import asyncio


class ReaderWakeup:
    """Ends a wait for records when partitions outside of this wait may be read again."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Wakes the reader."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def next_wake(self) -> asyncio.Future[None]:
        """Returns a future that the next `wake` resolves."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting
