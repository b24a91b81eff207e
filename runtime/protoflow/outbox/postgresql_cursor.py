"""The position up to which a relay has read the outbox, so that it skips deleted rows.

Deleted rows stay in the index for as long as any transaction may see them. A relay that always read
from the start would read all of them, and a single long transaction would block it.

Positions are assigned before transactions commit, so a row may appear with a lower position than a
row that was already read. But a transaction gets its id before it gets a position. So a snapshot
shows which rows were invisible when it was taken: rows of transactions with later ids, and of
transactions that were running. A reading up to a snapshot is complete; the next one only looks for
these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from protoflow.outbox.postgresql_database import OutboxDatabase

COLUMNS: Final = "position, id, topic, payload, key, metadata, due"
_DRAWN = (
    "coalesce(pg_sequence_last_value("
    "pg_get_serial_sequence('protoflow_outbox', 'position')::regclass), 0)"
)
_NOW = f"SELECT pg_current_snapshot()::text, {_DRAWN}"  # the statement is made of constants
# The second column gives this transaction an id above those of all assigned positions.
_NUMBERED = f"""WITH q AS MATERIALIZED (SELECT {_DRAWN} AS drawn)
SELECT q.drawn, pg_current_xact_id()::text FROM q"""  # noqa: S608
_FROM_START = "1:1:"
# Rows of a restored dump have ids of another server, which may be in the future here.
_RENUMBER = """UPDATE protoflow_outbox SET xid = pg_current_xact_id()
WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"""
_READ = f"""
(SELECT {COLUMNS} FROM protoflow_outbox
  WHERE parked IS NULL AND bucket = ANY ($1::int[]) AND position > $5 AND position <= $6
    AND xid >= pg_snapshot_xmax($3::text::pg_snapshot)
    AND pg_visible_in_snapshot(xid, $4::text::pg_snapshot)
  ORDER BY position LIMIT $2)
UNION ALL
(SELECT {COLUMNS} FROM protoflow_outbox
  WHERE parked IS NULL AND bucket = ANY ($1::int[]) AND position > $7
    AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($3::text::pg_snapshot)))
    AND pg_visible_in_snapshot(xid, $4::text::pg_snapshot)
  ORDER BY position LIMIT $2)
ORDER BY position LIMIT $2"""  # noqa: S608


@dataclass(slots=True)
class _Reading:
    """A reading from one snapshot to another.

    Attributes:
        last: the last position that was assigned before the snapshot was taken.
        snapshot: the reading returns rows that are visible in it.
        high: the last position that can be visible in it.
        position: the position reached so far.
    """

    last: int
    snapshot: str
    high: int
    position: int = -1


class Cursor:
    """Reads the rows that a relay has not read, in the order of each key."""

    def __init__(self, database: OutboxDatabase) -> None:
        self._database = database
        self._base, self._low = _FROM_START, 0
        self._reading: _Reading | None = None
        self._seen: tuple[Any, ...] | None = None

    def restart(self) -> None:
        """Forgets what was read, because old rows are needed again or the buckets changed."""
        self._base, self._low = _FROM_START, 0
        self._reading = self._seen = None

    async def read(self, buckets: Sequence[int], limit: int) -> list[Any]:
        """Returns the next rows of these buckets, at most `limit`; none if there are none now."""
        if self._reading is None:
            self._reading = await self._begin()
        reading = self._reading
        if reading is None:
            return []
        rows = await self._database.fetch(
            _READ, buckets, limit, self._base, reading.snapshot,
            max(self._low, reading.position), reading.high, reading.position,
        )  # fmt: skip
        if len(rows) < limit:
            self._base, self._low, self._reading = reading.snapshot, reading.last, None
        else:
            reading.position = rows[-1][0]
        return rows

    async def _begin(self) -> _Reading | None:
        """Takes the next snapshot; None if nothing was committed since the last one."""
        ((seen, drawn),) = await self._database.fetch(_NOW)
        if (seen, drawn) == self._seen:
            return None
        if _end(seen) < _end(self._base):
            # a standby that was behind became the primary: its ids are assigned again
            self.restart()
        if self._base == _FROM_START:
            await self._database.fetch(_RENUMBER)
        ((last, _),) = await self._database.fetch(_NUMBERED)
        ((snapshot, high),) = await self._database.fetch(_NOW)
        self._seen = (snapshot, high)
        return _Reading(last, snapshot, high)


def _end(snapshot: str) -> int:
    """Returns the first id that was not assigned when a snapshot was taken."""
    return int(snapshot.split(":")[1])
