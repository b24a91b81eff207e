"""Viewers of the dashboard: each has a stream, and samples are taken while there is a viewer.

Without a viewer, no samples are taken. A snapshot is taken and encoded once for all viewers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from protoflow.web.problems import problem_of
from protoflow.web.request import Request
from protoflow.web.response import Problem, encoded
from protoflow.web.sessions import session_cookies

#: Seconds between two snapshots, and between two samples that are kept for an hour.
PERIOD: Final = 2.0
_SAMPLED: Final = 10.0
_HOUR: Final = 3600.0
#: Seconds between two comments, which keep proxies from closing the stream.
_ALIVE: Final = 15.0
_MOST: Final = 32
#: A snapshot is current for this part of a period.
_NEARLY: Final = 0.9

Snapshot = dict[str, Any]
Take = Callable[[], Awaitable[Snapshot]]


class _Viewer:
    """A viewer, until the session ends.

    Args:
        request: the request that opened the stream.
    """

    def __init__(self, request: Request) -> None:
        self.session = session_cookies(request.headers.get("cookie", ""))
        self.admitted = request.still_admitted
        self.gone = asyncio.Event()


class Live:
    """Sends snapshots to viewers, at most 32."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=int(_HOUR / _SAMPLED))
        self._viewers: list[_Viewer] = []
        self._ended = False
        self._sampled_at = self._taken_at = float("-inf")
        self._event: asyncio.Future[bytes] | None = None

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._viewers)

    def end(self) -> None:
        """Ends all streams; browsers reconnect when the service runs again."""
        self._ended = True
        for viewer in self._viewers:
            viewer.gone.set()

    def sign_out(self, cookies: str) -> None:
        """Ends the streams of the sessions in a `Cookie` header."""
        ended = session_cookies(cookies)
        for viewer in self._viewers:
            if viewer.session & ended:
                viewer.gone.set()

    def sample(self, measured: Callable[[], dict[str, Any]]) -> None:
        """Keeps a sample, unless one was taken a moment ago."""
        now = time.monotonic()
        if now - self._sampled_at >= _SAMPLED:
            self._sampled_at = now
            self.samples.append({"time": time.time(), **measured()})

    def stream(self, take: Take, request: Request) -> AsyncIterator[bytes]:
        """Returns the events of one viewer. Raises Problem if there are too many viewers."""
        if self.viewers >= _MOST:
            raise Problem(
                503, f"{_MOST} viewers look on already; close a page, and try again",
                headers={"Retry-After": "10"},
            )  # fmt: skip
        if self._ended:
            raise Problem(503, "the service stops", headers={"Retry-After": "1"})
        return self._events(take, _Viewer(request))

    async def _events(self, take: Take, viewer: _Viewer) -> AsyncIterator[bytes]:
        self._viewers.append(viewer)
        try:
            commented_at = time.monotonic()
            yield b"retry: 2000\n\n"
            while not (self._ended or viewer.gone.is_set()) and viewer.admitted():
                yield await self._current(take)
                if time.monotonic() - commented_at >= _ALIVE:
                    yield b": alive\n\n"
                    commented_at = time.monotonic()
                await self._next_period(viewer)
        finally:
            self._viewers.remove(viewer)

    async def _current(self, take: Take) -> bytes:
        """Returns the event of this period; the first viewer that asks makes it for all."""
        now = time.monotonic()
        if self._event is None or now - self._taken_at >= _NEARLY * PERIOD:
            self._taken_at = now
            self._event = asyncio.ensure_future(_made(take))
        # The first viewer may leave while others wait for the event.
        return await asyncio.shield(self._event)

    async def _next_period(self, viewer: _Viewer) -> None:
        left = self._taken_at + PERIOD - time.monotonic()
        try:
            async with asyncio.timeout(max(left, PERIOD / 2)):
                await viewer.gone.wait()
        except TimeoutError:
            return


async def _made(take: Take) -> bytes:
    try:
        data, event = encoded(await take()), b"snapshot"
    except Exception as error:  # the status is sent: the page shows the sentence
        data, event = problem_of(error).response.body, b"problem"
    return b"event: %s\ndata: %s\n\n" % (event, data)
