"""Viewers of the dashboard: each has a stream, and samples are taken while there is a viewer.

Without a viewer, no samples are taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from protoflow.web.problems import problem_of
from protoflow.web.response import Problem, encoded

#: Seconds between two snapshots, and between two samples that are kept for an hour.
PERIOD: Final = 2.0
_SAMPLED: Final = 10.0
_HOUR: Final = 3600.0
#: Seconds between two comments, which keep proxies from closing the stream.
_ALIVE: Final = 15.0
_MOST: Final = 32

Snapshot = dict[str, Any]


class Live:
    """Sends snapshots to viewers, at most 32."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=int(_HOUR / _SAMPLED))
        self.viewers = 0
        self._ended = asyncio.Event()
        self._sampled_at = float("-inf")

    def end(self) -> None:
        """Ends all streams; browsers reconnect when the service runs again."""
        self._ended.set()

    def sample(self, measured: Callable[[], dict[str, Any]]) -> None:
        """Keeps a sample, unless one was taken a moment ago."""
        now = time.monotonic()
        if now - self._sampled_at >= _SAMPLED:
            self._sampled_at = now
            self.samples.append({"time": time.time(), **measured()})

    def stream(self, take: Callable[[], Awaitable[Snapshot]]) -> AsyncIterator[bytes]:
        """Returns the events of one viewer. Raises Problem if there are too many viewers."""
        if self.viewers >= _MOST:
            raise Problem(
                503, f"{_MOST} viewers look on already; close a page, and try again",
                headers={"Retry-After": "10"},
            )  # fmt: skip
        if self._ended.is_set():
            raise Problem(503, "the service stops", headers={"Retry-After": "1"})
        return self._events(take)

    async def _events(self, take: Callable[[], Awaitable[Snapshot]]) -> AsyncIterator[bytes]:
        self.viewers += 1
        try:
            commented_at = time.monotonic()
            yield b"retry: 2000\n\n"
            while not self._ended.is_set():
                try:
                    data, event = encoded(await take()), b"snapshot"
                # the status is already sent, so the page shows this text
                except Exception as error:
                    data, event = problem_of(error).response.body, b"problem"
                yield b"event: %s\ndata: %s\n\n" % (event, data)
                if time.monotonic() - commented_at >= _ALIVE:
                    yield b": alive\n\n"
                    commented_at = time.monotonic()
                await self._wait()
        finally:
            self.viewers -= 1

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(PERIOD):
                await self._ended.wait()
        except TimeoutError:
            return
