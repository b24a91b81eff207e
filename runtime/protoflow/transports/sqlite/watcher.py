"""Watches for writes of other processes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Final

from protoflow.transports.sqlite.worker import Call, Worker

_SHORTEST: Final = 0.005


class Watcher:
    """Reads `PRAGMA data_version` while subscriptions wait: often after a change, and then less
    often, up to `interval`."""

    def __init__(self, worker: Worker, interval: float, changed: Callable[[], object]) -> None:
        self._worker = worker
        self._longest = interval
        self._interval = min(_SHORTEST, interval)
        self._changed = changed
        self._version: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._stopped = False

    def start(self) -> None:
        """Starts reading it, until it has changed."""
        if not self._running and not self._stopped:
            self._running = True
            self._timer = self._loop.call_later(self._interval, self._read)

    def stop(self) -> None:
        """Stops reading it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        if self._stopped:
            return
        call = Call(_data_version, writes=False)
        call.future.add_done_callback(self._compare)
        self._worker.add(call)

    def _compare(self, future: asyncio.Future[int]) -> None:
        self._running = False
        if self._stopped or future.cancelled():
            return
        version = self._version if future.exception() else future.result()
        if version != self._version:
            self._version = version
            self._interval = min(_SHORTEST, self._longest)
            self._changed()
        else:
            self._interval = min(self._interval * 1.5, self._longest)
            self.start()


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
