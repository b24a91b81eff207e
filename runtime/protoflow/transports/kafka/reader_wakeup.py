"""What wakes the reader before its look for records is over."""

from __future__ import annotations

import asyncio


class ReaderWakeup:
    """Rung when something may be read that was left out of the look."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Wakes whoever listens."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def next_wake(self) -> asyncio.Future[None]:
        """Done when it is rung next."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting
