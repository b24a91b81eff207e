"""Connections of sqlite3 and aiosqlite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from protoflow.database.interface import Dialect, Row
from protoflow.database.placeholders import numbered


class _SQLite:
    dialect: Dialect = "sqlite"

    def __init__(self, connection: Any) -> None:  # Any: aiosqlite is not imported
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        """See `DatabaseConnection`."""
        try:
            return bool(self._connection.in_transaction)
        except (sqlite3.ProgrammingError, ValueError):  # the connection was closed
            return False

    @property
    def autocommits(self) -> bool:
        """See `DatabaseConnection`."""
        # Python 3.12 has `autocommit`; if it is not set, `isolation_level` decides.
        if getattr(self._connection, "autocommit", None) is True:
            return not self.in_transaction
        return self._connection.isolation_level is None and not self.in_transaction


class SyncSQLiteConnection(_SQLite):
    """A `sqlite3.Connection`."""

    def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `SyncDatabaseConnection`."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        rows: Sequence[Row] = cursor.execute(numbered(statement), values).fetchall()
        return rows

    def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `SyncDatabaseConnection`."""
        self._connection.executemany(numbered(statement), rows)


class SQLiteConnection(_SQLite):
    """A `sqlite3.Connection` on an event loop: each statement is a short, local call."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._sync = SyncSQLiteConnection(connection)

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `DatabaseConnection`."""
        return self._sync.fetch(statement, *values)

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `DatabaseConnection`."""
        self._sync.execute_many(statement, rows)


class AiosqliteConnection(_SQLite):
    """An `aiosqlite.Connection`."""

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `DatabaseConnection`."""
        async with self._connection.execute(numbered(statement), values) as cursor:
            cursor.row_factory = None
            rows: Sequence[Row] = await cursor.fetchall()
            return rows

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `DatabaseConnection`."""
        await self._connection.executemany(numbered(statement), rows)
