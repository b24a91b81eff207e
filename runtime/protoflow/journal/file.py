"""The file of a journal: its tables, mode and size."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any, Final

from protoflow.journal.entries import ACTION_COLUMNS, EVENT_COLUMNS, MINUTE_COLUMNS

#: The version of the tables. A change of the tables increases it.
VERSION: Final = 1
#: Only the owner may read the file, because it contains error texts.
_PRIVATE: Final = 0o600
#: Seconds to wait for other writing processes.
_BUSY: Final = 2.0
#: The longest text in an entry.
_LONGEST: Final = 1024

_MINUTES = ", ".join(f"{name} NOT NULL DEFAULT 0" for name in MINUTE_COLUMNS)
_TABLES: Final = (
    f"CREATE TABLE journal_events (sequence INTEGER PRIMARY KEY, {', '.join(EVENT_COLUMNS)})",
    "CREATE INDEX journal_ids ON journal_events (id)",
    "CREATE INDEX journal_causes ON journal_events (cause) WHERE cause <> ''",
    (
        f"CREATE TABLE journal_minutes (minute INTEGER, handler TEXT, {_MINUTES}, "
        "PRIMARY KEY (minute, handler)) WITHOUT ROWID"
    ),
    f"CREATE TABLE journal_actions (sequence INTEGER PRIMARY KEY, {', '.join(ACTION_COLUMNS)})",
    "CREATE TABLE journal_schema (version INTEGER NOT NULL)",
    f"INSERT INTO journal_schema VALUES ({VERSION})",  # noqa: S608  a number
)


class JournalError(Exception):
    """The file is not a journal, or cannot become one."""


def open_to_write(path: str, max_bytes: int) -> sqlite3.Connection:
    """Opens a journal. If there is none, creates it for this user only.

    Raises:
        JournalError: the file is not a journal.
        sqlite3.Error, OSError: the file cannot be opened.
    """
    _make(path)
    connection = _connect(path, "rw")
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"the file system gives journal mode {mode}, not WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {max(max_bytes // 8, 1 << 20)}").fetchall()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {max_bytes // size}").fetchall()
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: str) -> sqlite3.Connection:
    """Opens a journal without changing it.

    Raises:
        JournalError: there is no file, or it is not a journal.
    """
    if not Path(path).exists():
        raise JournalError("the file does not exist yet")
    try:
        connection = _connect(path, "ro")
        if _tables(connection) != {"events", "minutes", "actions", "schema"}:
            connection.close()
            raise JournalError("the file is no journal of this version")
    except sqlite3.Error as error:
        raise JournalError(f"it cannot be read: {error}") from error
    return connection


def identity(path: str) -> tuple[int, int] | None:
    """Returns the identity of the file at a path; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def plain(value: Any) -> Any:
    """Returns a value as the file can store it: text is valid and not too long."""
    if isinstance(value, str):
        return value[:_LONGEST].encode(errors="replace").decode()
    return value


def _connect(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY,
        isolation_level=None,
        check_same_thread=False,
    )


def _make(path: str) -> None:
    """Creates an empty file if there is none. An existing file is not opened here: SQLite's locks
    on a file end when the process closes any descriptor of it
    (https://www.sqlite.org/howtocorrupt.html)."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
    except FileExistsError:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            raise JournalError("it is not a regular file") from None


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _TABLES:
                connection.execute(statement)
        elif _tables(connection) != {"events", "minutes", "actions", "schema"}:
            raise JournalError(
                "the file contains other tables, so it is not a journal; name a new file"
            )
        (version,) = connection.execute("SELECT version FROM journal_schema").fetchone()
        if version != VERSION:
            raise JournalError(
                f"the journal has version {version}, this protoflow writes {VERSION}; name a new"
                " file"
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _tables(connection: sqlite3.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    return {name.removeprefix("journal_") for (name,) in connection.execute(query)}
