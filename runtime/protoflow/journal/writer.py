"""Writes a journal: whole batches, deletion of old entries, and a limit of the size."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from protoflow.journal.entries import ACTION_COLUMNS, EVENT_COLUMNS, MINUTE_COLUMNS
from protoflow.journal.file import identity, open_to_write, plain

#: Entries are kept for this many seconds.
RETENTION: Final = 86400.0
#: Above this share of the size, the oldest events are deleted.
_FULL: Final = 0.9
#: The share of the events that is then deleted.
_STEP: Final = 0.1
#: How often events are deleted for one batch.
_SHRINKS: Final = 10
_KINDS = ("events", "minutes", "actions")

#: One entry: its kind, an index of `_KINDS`, and its values.
Row = tuple[int, tuple[Any, ...]]
EVENT, MINUTE, ACTION = range(3)


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO journal_{table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608


_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in MINUTE_COLUMNS)
_INSERTS = (
    _insert("events", EVENT_COLUMNS),
    # Several processes add to the same minute.
    (
        f"{_insert('minutes', ('minute', 'handler', *MINUTE_COLUMNS))} "
        f"ON CONFLICT (minute, handler) DO UPDATE SET {_ADDED}"
    ),
    _insert("actions", ACTION_COLUMNS),
)
_EXPIRE = (
    # Events are almost in order of time, so it is enough to check the first ones.
    (
        "DELETE FROM journal_events WHERE sequence < coalesce("
        "(SELECT sequence FROM journal_events WHERE time >= ? ORDER BY sequence LIMIT 1), "
        "(SELECT max(sequence) + 1 FROM journal_events))"
    ),
    "DELETE FROM journal_minutes WHERE minute < ?",
    "DELETE FROM journal_actions WHERE time < ?",
)
_OLDEST = (
    (
        "DELETE FROM journal_events WHERE sequence <= (SELECT min(sequence) + "
        "(max(sequence) - min(sequence)) * ? FROM journal_events)"
    ),
    (
        "DELETE FROM journal_minutes WHERE minute <= (SELECT min(minute) + "
        "(max(minute) - min(minute)) * ? FROM journal_minutes)"
    ),
)


class JournalWriter:
    """Writes to one file, in one thread.

    Args:
        path: the file.
        max_bytes: the limit of its size, without the write-ahead log.
    """

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def write(self, rows: Iterable[Row], now: float) -> None:
        """Writes all rows or none. Raises sqlite3.Error, OSError, JournalError."""
        if self._connection is not None and identity(self._path) != self._identity:
            self.close()  # the file was deleted or replaced, so new entries would be lost
        if self._connection is None:
            self._connection = open_to_write(self._path, self._max_bytes)
            self._identity = identity(self._path)
        values: tuple[list[tuple[Any, ...]], ...] = ([], [], [])
        for kind, row in rows:
            values[kind].append(tuple(map(plain, row)))
        for remaining in reversed(range(_SHRINKS)):
            try:
                self._write(self._connection, values)
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not remaining:
                    raise
                self._shrink(self._connection)
        with contextlib.suppress(sqlite3.OperationalError):  # the next batch repeats it
            self._expire(self._connection, now)

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._connection is not None

    def close(self) -> None:
        """Closes the file; `write` opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write(
        self, connection: sqlite3.Connection, values: Sequence[Sequence[tuple[Any, ...]]]
    ) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in zip(_INSERTS, values, strict=True):
                if rows:
                    connection.executemany(statement, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _expire(self, connection: sqlite3.Connection, now: float) -> None:
        """Deletes entries that are too old, and then entries above the size. SQLite reuses freed
        pages."""
        before = now - RETENTION
        for statement in _EXPIRE:
            connection.execute(statement, (before,))
        if _used(connection) > self._max_bytes * _FULL:
            self._shrink(connection)

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Deletes the oldest entries."""
        for statement in _OLDEST:
            connection.execute(statement, (_STEP,))


def _used(connection: sqlite3.Connection) -> int:
    """Returns the number of bytes in use."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
