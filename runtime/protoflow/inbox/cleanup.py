"""Removes old entries of an inbox."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from protoflow.inbox.table import Table
from protoflow.inbox.transaction import Opener, SyncOpener

_log = logging.getLogger("protoflow.inbox")

#: Seconds between two cleanups, at most; otherwise this share of the retention.
_LONGEST: Final = 3600.0
_SHARE: Final = 0.05
#: Seconds between two portions, so that a cleanup does not slow down the handlers.
_PAUSE: Final = 0.05


class Cleanup:
    """Removes entries that are older than the retention, one portion in each transaction.

    Args:
        opener: opens the transactions; None if handlers run only in threads.
        sync_opener: opens them in threads.
        table: the statements.
        retention: seconds.
    """

    def __init__(
        self,
        opener: Opener | None,
        sync_opener: SyncOpener | None,
        table: Table,
        retention: float,
    ) -> None:
        self._opener = opener
        self._sync_opener = sync_opener
        self._table = table
        self._retention = retention

    async def run(self) -> None:
        """Cleans until it is cancelled. A failure is logged, and the cleanup is tried again."""
        pause = min(_LONGEST, self._retention * _SHARE)
        while True:
            try:
                cleaned = await self.portion()
            except Exception as error:
                cleaned = 0
                _log.warning("the inbox was not cleaned", extra={"error": str(error)})
            await asyncio.sleep(_PAUSE if cleaned else pause)

    async def portion(self) -> int:
        """Removes some old entries; returns how many."""
        if self._opener is None:
            return await asyncio.to_thread(self._portion)
        transaction = await self._opener.begin()
        try:
            rows = await transaction.database.fetch(self._table.delete, self._retention)
            await transaction.commit()
            return len(rows)
        finally:
            await transaction.close()

    def _portion(self) -> int:
        if self._sync_opener is None:
            return 0
        transaction = self._sync_opener.begin_sync()
        try:
            rows = transaction.database.fetch(self._table.delete, self._retention)
            transaction.commit()
            return len(rows)
        finally:
            transaction.close()
