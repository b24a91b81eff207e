"""Notices the end of the user's transactions, to wake consumers after a commit.

Drivers have no common hook. They know without asking the server whether a transaction is open. So
this state is polled, less often the longer the transaction lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from protoflow.database.interface import DatabaseConnection, SyncDatabaseConnection

_AnyConnection: TypeAlias = DatabaseConnection | SyncDatabaseConnection

#: Seconds between two checks: this many at first, and then this share of the age.
_FIRST: Final = 0.001
_SHARE: Final = 0.1
#: Seconds after which consumers find the messages themselves by polling.
_LONGEST: Final = 1.0


class TransactionWatch:
    """Calls back after transactions end, by commit or rollback. An event loop has one watch."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: list[tuple[_AnyConnection, float, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: _AnyConnection, ended: Callable[[], None]) -> None:
        """Calls `ended` soon after the open transaction of a connection has ended. It calls after a
        second in any case, because a later transaction of the connection looks the same."""
        self._open.append((connection, self._loop.time(), ended))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_FIRST, self._look)

    def close(self) -> None:
        """Stops all calls."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        done = [
            each for each in self._open if not each[0].in_transaction or now - each[1] > _LONGEST
        ]
        self._open = [each for each in self._open if each not in done]
        if self._open:
            youngest = max(since for _, since, _ in self._open)
            wait = max(_FIRST, (now - youngest) * _SHARE)
            self._timer = self._loop.call_later(wait, self._look)
        for _, _, ended in done:
            ended()
