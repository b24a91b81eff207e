"""`AsyncConnection` and `AsyncSession` of SQLAlchemy, which is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protoflow.database.interface import Dialect, Row
from protoflow.database.placeholders import numbered, positional
from protoflow.error_codes import DATABASE
from protoflow.errors import ConfigError

_DRIVERS = "asyncpg, psycopg and aiosqlite"


class SQLAlchemyConnection:
    """An `AsyncConnection`.

    Raises:
        ConfigError: its engine uses an unknown driver.
    """

    def __init__(self, connection: Any) -> None:  # Any: SQLAlchemy is not imported
        self._connection = connection
        driver = connection.engine.dialect.driver
        if driver not in ("asyncpg", "psycopg", "psycopg_async", "aiosqlite"):
            raise ConfigError(
                f"an engine with the driver {driver} is not supported; use one of {_DRIVERS}",
                code=DATABASE,
            )
        self._driver = driver
        self.dialect: Dialect = "sqlite" if driver == "aiosqlite" else "postgresql"

    @property
    def in_transaction(self) -> bool:
        """See `DatabaseConnection`."""
        return not self._connection.closed and bool(self._connection.in_transaction())

    @property
    def autocommits(self) -> bool:
        """See `DatabaseConnection`."""
        options = self._connection.sync_connection.get_execution_options()
        # SQLAlchemy keeps the argument of `create_engine` only under a private name.
        of_engine = getattr(self._connection.engine.dialect, "_on_connect_isolation_level", None)
        return bool((options.get("isolation_level") or of_engine) == "AUTOCOMMIT")

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """See `DatabaseConnection`."""
        if self._driver == "asyncpg":
            result = await self._connection.exec_driver_sql(statement, values or None)
        elif self._driver == "aiosqlite":
            result = await self._connection.exec_driver_sql(numbered(statement), values or None)
        else:
            result = await self._connection.exec_driver_sql(*positional(statement, values))
        return result.all() if result.returns_rows else ()

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """See `DatabaseConnection`."""
        for row in rows:
            await self.fetch(statement, *row)


async def session_connection(session: Any) -> Any:  # Any: SQLAlchemy is not imported
    """Returns the connection of a session; the session's transaction begins if it has not begun.

    Pending objects of the session are flushed, so that the user's rows are written first.
    """
    await session.flush()
    return await session.connection()
