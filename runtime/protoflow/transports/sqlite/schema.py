"""The tables, their version, and the connections to them.

A message is stored once, in the range of row ids of its topic: its sequence is
`topic << 40 | n`, so a topic is read in order without an index. A group is a position in its
topic. In addition, it has one delivery row for each message up to this position that it took and
has not finished. Messages beyond the position have no rows, so the cost of publishing does not
depend on the number of groups.

`until` of a free delivery row (token 0) is the time when it may be claimed: 0 for now, a time, or
BLOCKED while an earlier row of its lane is unfinished. `due` is the value that `until` gets when
the row is unblocked. The token of a claimed row is the session that holds it. When a session
expires, its rows become free. Replayed dead letters have sequences beyond all topics, and a row
for the only group that gets them. `mark` counts the runs in isolation that began and did not end
(`Isolation`).

All names have the prefix `protoflow_`, and the version is in a table, not in
`PRAGMA user_version`. So the file may also contain tables of the application, whose writes join
the transactions of this transport.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from protoflow.error_codes import FILE_PLACE, OTHER_VERSION
from protoflow.errors import ConnectionFailedError
from protoflow.transports.sqlite.options import SqliteOptions

TOPIC_SHIFT: Final = 40
POSITION: Final = (1 << TOPIC_SHIFT) - 1
REPLAYS: Final = 1 << 62
BLOCKED: Final = 1e300

#: Pages of the log before they are copied into the file: fewer copies of short-lived data.
_CHECKPOINT: Final = 4000

#: The version of the tables. A change of the tables increases it.
VERSION: Final = 2

_TABLES: Final = """
CREATE TABLE protoflow_topics (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  next INTEGER NOT NULL DEFAULT 1,
  dead INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE protoflow_groups (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic INTEGER NOT NULL,
  name TEXT NOT NULL,
  position INTEGER NOT NULL,
  ordering TEXT NOT NULL,
  session INTEGER,
  UNIQUE (topic, name)
);
CREATE TABLE protoflow_sessions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  group_id INTEGER NOT NULL,
  client TEXT NOT NULL,
  expires REAL NOT NULL,
  boot TEXT NOT NULL,
  deadline REAL NOT NULL
);
CREATE TABLE protoflow_messages (
  sequence INTEGER PRIMARY KEY,
  head TEXT NOT NULL,
  key BLOB,
  payload BLOB,
  time REAL NOT NULL,
  due REAL,
  size INTEGER NOT NULL
);
CREATE TABLE protoflow_deliveries (
  sequence INTEGER NOT NULL,
  group_id INTEGER NOT NULL,
  token INTEGER NOT NULL,
  until REAL NOT NULL,
  due REAL NOT NULL,
  lane BLOB,
  deliveries INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  first_failure REAL NOT NULL,
  mark INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (sequence, group_id)
) WITHOUT ROWID;
CREATE INDEX protoflow_free ON protoflow_deliveries (group_id, until, sequence) WHERE token = 0;
CREATE INDEX protoflow_lanes ON protoflow_deliveries (group_id, lane, sequence)
  WHERE lane IS NOT NULL;
CREATE TABLE protoflow_letters (
  sequence INTEGER PRIMARY KEY,
  topic INTEGER NOT NULL,
  id TEXT NOT NULL
);
CREATE INDEX protoflow_letter_ids ON protoflow_letters (topic, id);
"""


#: Seconds between attempts to create a new file that other processes create, too.
_PAUSE = 0.01


def connect(path: str, options: SqliteOptions) -> sqlite3.Connection:
    """Returns a connection to an existing file, in autocommit mode; the caller begins and
    commits."""
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?mode=rw",
        uri=True,
        timeout=options.busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        mode = _write_ahead(connection, time.monotonic() + options.busy_timeout)
        if mode != "wal":
            raise ConnectionFailedError(
                f"the file system gives journal mode {mode!r}, not WAL; use a local disk",
                code=FILE_PLACE,
            )
        connection.execute(f"PRAGMA synchronous = {options.synchronous.value}")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}").fetchall()
        connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection, deadline: float) -> str:
    """Turns on write-ahead logging; returns the mode of the file.

    If several processes create a file at once, SQLite refuses all but one immediately, regardless
    of the busy timeout (https://www.sqlite.org/c3ref/busy_handler.html). So they try again.
    """
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return str(mode)


def prepare(connection: sqlite3.Connection) -> None:
    """Creates missing tables. Raises ConnectionFailedError for tables that this code did not
    create: those of another version or another program."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _columns(connection, tuple(_expected()))
        if not found:
            _make(connection)
        else:
            _verify(connection, found)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("CREATE TABLE protoflow_schema (version INTEGER NOT NULL)")
    connection.execute("INSERT INTO protoflow_schema VALUES (?)", (VERSION,))


def _verify(connection: sqlite3.Connection, found: dict[str, list[str]]) -> None:
    if found.get("protoflow_schema") == ["version"]:
        query = "SELECT version FROM protoflow_schema ORDER BY rowid DESC LIMIT 1"
        version = (connection.execute(query).fetchone() or (None,))[0]
        if version != VERSION:
            raise ConnectionFailedError(
                f"the database has schema version {version}, this protoflow reads and writes "
                f"{VERSION}: let the version that created it handle its messages, "
                "or name a new file",
                code=OTHER_VERSION,
            )
    if strange := [name for name, columns in _expected().items() if found.get(name) != columns]:
        raise ConnectionFailedError(
            f"the database has tables named protoflow_*, but {', '.join(strange)} is not of this "
            "version of protoflow: name a new file",
            code=OTHER_VERSION,
        )


@functools.cache
def _expected() -> dict[str, list[str]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make(connection)
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'protoflow%'"
        )
        return _columns(connection, [name for (name,) in names.fetchall()])


def _columns(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the columns of the existing tables."""
    query = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
    found = {
        name: [column for (column,) in connection.execute(query, (name,)).fetchall()]
        for name in names
    }
    return {name: columns for name, columns in found.items() if columns}
