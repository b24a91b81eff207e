"""Emptying the log: old partitions that no group needs any more."""

from __future__ import annotations

import logging

from protoflow.transports.postgresql.database import Database

_log = logging.getLogger("protoflow.transports.postgresql")
#: Seconds between two attempts of a process; one process at a time does it.
INTERVAL = 60.0
_REPORT_AGAIN = 3600.0


class Retention:
    """Turns the ring of partitions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reported = -_REPORT_AGAIN

    async def apply(self) -> str:
        """Empties what is old and finished, and begins the next partition when it is time;
        returns what was done. Raises TransportError."""
        ((done,),) = await self._database.fetch(
            "SELECT {s}.rotate($1)", self._database.options.retention
        )
        now = self._database.clock.monotonic()
        if done == "full" and now - self._reported >= _REPORT_AGAIN:
            self._reported = now
            _log.warning(
                "the log grows beyond its retention: a group has not finished old messages",
                extra={"schema": self._database.schema},
            )
        return str(done)
