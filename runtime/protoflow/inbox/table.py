"""The table `protoflow_inbox`: its statements on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from protoflow.database import DatabaseConnection, Dialect, Row, SyncDatabaseConnection
from protoflow.inbox.entries import Entry

#: A role with the right to create tables runs this once, if the inbox does not create its table.
POSTGRESQL_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS protoflow_inbox (
    day int4 NOT NULL, consumer text NOT NULL, handler text NOT NULL, source text NOT NULL,
    id text NOT NULL, run int4 NOT NULL DEFAULT 1, handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, consumer, handler, source, id));
CREATE INDEX IF NOT EXISTS protoflow_inbox_handled_at ON protoflow_inbox USING brin (handled_at)"""
SQLITE_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS protoflow_inbox (
    day INTEGER NOT NULL, consumer TEXT NOT NULL, handler TEXT NOT NULL, source TEXT NOT NULL,
    id TEXT NOT NULL, run INTEGER NOT NULL DEFAULT 1,
    handled_at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0),
    PRIMARY KEY (day, consumer, handler, source, id));
CREATE INDEX IF NOT EXISTS protoflow_inbox_handled_at ON protoflow_inbox (handled_at)"""
COLUMNS: Final = "day, consumer, handler, source, id, run, handled_at"
#: Two processes that start at once would both create the table, so one waits. Any number works.
LOCK: Final = "SELECT pg_advisory_xact_lock(736570)"

_ANEW: Final = "DO NOTHING"
_AGAIN: Final = """(day, consumer, handler, source, id) DO UPDATE SET
  run = protoflow_inbox.run + 1, handled_at = excluded.handled_at"""
# A run of the same message in another process holds its entry until it ends. The limit of this wait
# must not apply to the handler's own statements, and a separate statement would need another round
# trip.
_BOUND: Final = """WITH before AS MATERIALIZED
  (SELECT current_setting('lock_timeout') AS value),
bound AS MATERIALIZED (SELECT set_config('lock_timeout', '{wait}ms', true) FROM before)"""
_ENTER_ONE_POSTGRESQL: Final = f"""{_BOUND}
INSERT INTO protoflow_inbox (day, consumer, handler, source, id)
SELECT $3::int4, $1::text, $2::text, $4::text, $5::text FROM bound
ON CONFLICT {{conflict}}
RETURNING day, source, id, (SELECT set_config('lock_timeout', value, true) FROM before)"""  # noqa: S608  constants
# The limit is lifted after all rows, because rows behind the first would wait without it.
_ENTER_MANY_POSTGRESQL: Final = f"""{_BOUND},
entered AS (
  INSERT INTO protoflow_inbox (day, consumer, handler, source, id)
  SELECT e.day, $1, $2, e.source, e.id FROM bound,
    unnest($3::int4[], $4::text[], $5::text[]) AS e(day, source, id)
  ON CONFLICT DO NOTHING RETURNING day, source, id),
lifted AS MATERIALIZED (
  SELECT set_config('lock_timeout', CASE WHEN every.number >= 0 THEN value END, true)
  FROM before, (SELECT count(*) AS number FROM entered) AS every)
SELECT entered.day, entered.source, entered.id FROM lifted, entered"""  # noqa: S608
_ENTER_SQLITE: Final = """INSERT INTO protoflow_inbox (day, consumer, handler, source, id)
VALUES ($3, $1, $2, $4, $5) ON CONFLICT {conflict} RETURNING day, source, id"""
# The same without parameters, so that it can be sent together with BEGIN. It is planned each time:
# planning several short statements takes less time than planning one that does everything.
_ENTER_AS_TEXT: Final = """
SELECT set_config('protoflow.lock_timeout', current_setting('lock_timeout'), true);
SET LOCAL lock_timeout = '{wait}ms';
INSERT INTO protoflow_inbox (day, consumer, handler, source, id)
VALUES ({day}, {consumer}, {handler}, {source}, {id}) ON CONFLICT {conflict}
RETURNING set_config('lock_timeout', current_setting('protoflow.lock_timeout'), true)"""
_DELETE_POSTGRESQL: Final = """DELETE FROM protoflow_inbox WHERE ctid IN (
  SELECT ctid FROM protoflow_inbox WHERE handled_at < now() - $1::float8 * interval '1 second'
  LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING 1"""
_DELETE_SQLITE: Final = """DELETE FROM protoflow_inbox WHERE rowid IN (
  SELECT rowid FROM protoflow_inbox
  WHERE handled_at < (julianday('now') - 2440587.5) * 86400.0 - $1 LIMIT 1000) RETURNING 1"""


class Table:
    """The statements of one dialect.

    Args:
        dialect: the database.
        wait: seconds that an entry waits for a run of the same message in another process.
    """

    def __init__(self, dialect: Dialect, wait: float) -> None:
        self._postgresql = dialect == "postgresql"
        self.schema = POSTGRESQL_SCHEMA if self._postgresql else SQLITE_SCHEMA
        self.delete = _DELETE_POSTGRESQL if self._postgresql else _DELETE_SQLITE
        milliseconds = max(1, round(wait * 1000))
        one = _ENTER_ONE_POSTGRESQL if self._postgresql else _ENTER_SQLITE
        self._one = [one.format(conflict=each, wait=milliseconds) for each in (_ANEW, _AGAIN)]
        self._texts = [
            partial(_ENTER_AS_TEXT.format, conflict=each, wait=milliseconds)
            for each in (_ANEW, _AGAIN)
        ]
        self._many = _ENTER_MANY_POSTGRESQL.format(wait=milliseconds)

    async def enter(
        self, database: DatabaseConnection, consumer: str, handler: str, entries: Sequence[Entry],
        again: Sequence[bool],
    ) -> set[Entry]:  # fmt: skip
        """Records messages; returns those that are new or must be run again."""
        found: set[Entry] = set()
        for statement, values in self._statements(consumer, handler, entries, again):
            found.update(map(_entry, await database.fetch(statement, *values)))
        return found

    def text(self, consumer: str, handler: str, entry: Entry, again: bool) -> str:
        """Returns statements of PostgreSQL that record a message; the last one is an INSERT."""
        return self._texts[again](
            day=entry.day,
            consumer=_literal(consumer),
            handler=_literal(handler),
            source=_literal(entry.source),
            id=_literal(entry.id),
        )

    def enter_sync(
        self, database: SyncDatabaseConnection, consumer: str, handler: str,
        entries: Sequence[Entry], again: Sequence[bool],
    ) -> set[Entry]:  # fmt: skip
        """The same in a thread."""
        found: set[Entry] = set()
        for statement, values in self._statements(consumer, handler, entries, again):
            found.update(map(_entry, database.fetch(statement, *values)))
        return found

    def _statements(
        self, consumer: str, handler: str, entries: Sequence[Entry], again: Sequence[bool]
    ) -> list[tuple[str, tuple[object, ...]]]:
        if self._postgresql and len(entries) > 1 and not any(again):
            # All processes use the same order, because two batches might otherwise wait for each
            # other.
            columns = zip(*sorted(set(entries)), strict=True)
            return [(self._many, (consumer, handler, *map(list, columns)))]
        repeated = {entry for entry, each in zip(entries, again, strict=True) if each}
        return [
            (self._one[entry in repeated], (consumer, handler, *entry))
            for entry in sorted(set(entries))
        ]


def _entry(row: Row) -> Entry:
    return Entry(row[0], row[1], row[2])


def _literal(text: str) -> str:
    """Returns SQL for a text: only digits are quoted, so no text can end the literal."""
    return f"convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8')"
