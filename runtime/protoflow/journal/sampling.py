"""Samples the counters of handlers each minute, so that recording costs nothing per message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from protoflow.journal.journal import Journal
from protoflow.stats.handlers import COUNTERS, HandlerStats

#: Seconds between two samples, at most.
_INTERVAL: Final = 10.0
_MINUTE: Final = 60


class Sampling:
    """Records the changes of handlers' counters.

    Args:
        journal: stores the minutes.
        handlers: the counters by the name of the handler; handlers may be added.
        now: the time in seconds since the epoch.
    """

    def __init__(
        self, journal: Journal, handlers: Mapping[str, HandlerStats], now: Callable[[], float]
    ) -> None:
        self._journal = journal
        self._handlers = handlers
        self._now = now
        self._last: dict[str, tuple[float, ...]] = {}
        self._minute = _minute_of(now())
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts sampling, until `stop`."""
        now = self._now()
        left = _MINUTE - now % _MINUTE
        self._timer = asyncio.get_running_loop().call_later(min(_INTERVAL, left), self._look)

    def stop(self) -> None:
        """Takes the last sample."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.sample()

    def sample(self) -> None:
        """Records the counts since the last sample, in the minute in which that period began."""
        for name, stats in self._handlers.items():
            found = (
                *(getattr(stats, counter) for counter in COUNTERS),
                *(stats.timings.runs, stats.timings.seconds),
            )
            before = self._last.get(name, (0,) * len(found))
            if found != before:
                self._last[name] = found
                moved = [after - earlier for after, earlier in zip(found, before, strict=True)]
                self._journal.record_minute(self._minute, name, moved)
        self._minute = _minute_of(self._now())

    def _look(self) -> None:
        self.sample()
        self.start()


def _minute_of(now: float) -> int:
    return int(now) // _MINUTE * _MINUTE
