"""Connections of asyncpg and psycopg 3. Neither library is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from protoflow.database.interface import Dialect, Row
from protoflow.database.placeholders import positional

#: PQTRANS_IDLE and PQTRANS_UNKNOWN of libpq: no transaction, and no connection.
_IDLE, _CLOSED = 0, 4
# Rows are tuples, even if the connection has another row factory.
_TUPLES: Final = {"row_factory": lambda _cursor: tuple}


class AsyncpgConnection:
    """An asyncpg connection, or one of a pool."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: Any) -> None:  # Any: asyncpg has no types
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        """See `DatabaseConnection`."""
        try:
            return bool(self._connection.is_in_transaction())
        # the connection was returned to its pool, so asyncpg raises InterfaceError
        except Exception:
            return False

    @property
    def closed(self) -> bool:
        """Whether the connection broke, was closed or returned to its pool."""
        try:
            return bool(self._connection.is_closed())
        except Exception:  # the same error; a broken connection raises it, too
            return True

    @property
    def autocommits(self) -> bool:
        """See `DatabaseConnection`."""
        return not self.in_transaction

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `DatabaseConnection`."""
        rows: Sequence[Row] = await self._connection.fetch(statement, *values)
        return rows

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `DatabaseConnection`."""
        await self._connection.executemany(statement, rows)


class _Psycopg:
    dialect: Dialect = "postgresql"

    def __init__(self, connection: Any) -> None:  # Any: psycopg is not imported
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        """See `DatabaseConnection`."""
        return self._connection.info.transaction_status not in (_IDLE, _CLOSED)

    @property
    def closed(self) -> bool:
        """Whether the connection broke, or was closed."""
        return bool(self._connection.closed)

    @property
    def autocommits(self) -> bool:
        """See `DatabaseConnection`."""
        return bool(self._connection.autocommit) and not self.in_transaction


class PsycopgConnection(_Psycopg):
    """A psycopg `AsyncConnection`."""

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `DatabaseConnection`."""
        async with self._connection.cursor(**_TUPLES) as cursor:
            await cursor.execute(*positional(statement, values))
            return await cursor.fetchall() if cursor.description else ()

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `DatabaseConnection`."""
        for row in rows:
            await self.fetch(statement, *row)


class SyncPsycopgConnection(_Psycopg):
    """A psycopg `Connection`."""

    def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `SyncDatabaseConnection`."""
        with self._connection.cursor(**_TUPLES) as cursor:
            cursor.execute(*positional(statement, values))
            return cursor.fetchall() if cursor.description else ()

    def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `SyncDatabaseConnection`."""
        for row in rows:
            self.fetch(statement, *row)
