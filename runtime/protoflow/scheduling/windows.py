"""The outputs of a stream on their way, window by window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from protoflow.message import Message

#: A window is full with so many messages, or so many bytes.
MESSAGES = 64
BYTES = 1024 * 1024

#: Publishes now and returns when all is confirmed; raises PublishError.
PublishNow: TypeAlias = Callable[[Sequence[Message]], Awaitable[None]]


class Windows:
    """One window is on its way while the handler makes the next."""

    def __init__(self, publish_now: PublishNow) -> None:
        self._publish_now = publish_now
        self._last: asyncio.Future[None] | None = None

    async def send(self, messages: Sequence[Message]) -> None:
        """Publishes a window once the one before is confirmed. Raises that one's PublishError."""
        await self.confirmed()
        self._last = asyncio.ensure_future(self._publish_now(messages))

    async def confirmed(self) -> None:
        """Waits for the last window. Raises its PublishError."""
        if self._last is not None:
            # Not awaited itself: a run that is cancelled must not cancel the transport's work.
            await asyncio.wait((self._last,))
            last, self._last = self._last, None
            last.result()

    def forget(self) -> None:
        """The run failed: whatever comes of the last window, its outputs are made again."""
        if self._last is not None:
            self._last.add_done_callback(lambda last: last.cancelled() or last.exception())
