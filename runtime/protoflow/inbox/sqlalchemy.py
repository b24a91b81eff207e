"""Transactions of SQLAlchemy engines and sessions. SQLAlchemy is not imported."""

from __future__ import annotations

import contextlib
from typing import Any

from protoflow.database import DatabaseConnection, Dialect, adapt
from protoflow.database.sqlalchemy import SQLAlchemyConnection, session_connection
from protoflow.error_codes import DATABASE
from protoflow.errors import ConfigError


class Engine:
    """An `AsyncEngine`."""

    def __init__(self, engine: Any) -> None:  # Any: SQLAlchemy is not imported
        self._engine = engine
        self.dialect: Dialect = _dialect(engine)

    async def begin(self) -> EngineTransaction:
        """See `Opener`."""
        connection = await self._engine.connect()
        try:
            transaction = await connection.begin()
            return EngineTransaction(
                connection, SQLAlchemyConnection(connection), transaction, await _driver(connection)
            )
        except BaseException:
            await connection.close()
            raise

    async def close(self) -> None:
        """See `Opener`."""


class EngineTransaction:
    """A transaction on an `AsyncConnection`."""

    def __init__(
        self, connection: Any, database: DatabaseConnection, transaction: Any,
        driver: DatabaseConnection,
    ) -> None:  # fmt: skip
        self.connection = connection
        self.database = database
        self._driver = driver
        self._transaction = transaction
        self.commit = transaction.commit

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        # SQLAlchemy does not see a COMMIT that a handler executes; the driver does.
        return bool(self._transaction.is_active) and self._driver.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return bool(getattr(self._driver, "closed", False))

    async def prepare(self) -> None:
        """See `Transaction`."""
        if self.database.dialect == "postgresql":
            await self.database.fetch("SELECT 1")  # a failed transaction refuses this statement

    async def close(self) -> None:
        """See `Transaction`."""
        with contextlib.suppress(Exception):
            await self.connection.close()  # the rest is rolled back


class Sessions:
    """An `async_sessionmaker`."""

    def __init__(self, make: Any) -> None:  # Any: SQLAlchemy is not imported
        self._make = make
        engine = make.kw.get("bind")
        if engine is None:
            raise ConfigError(
                "the async_sessionmaker of an inbox has no engine; create it with "
                "async_sessionmaker(engine)",
                code=DATABASE,
            )
        self.dialect: Dialect = _dialect(engine)

    async def begin(self) -> SessionTransaction:
        """See `Opener`."""
        session = self._make()
        try:
            transaction = await session.begin()
            connection = await session_connection(session)
            return SessionTransaction(
                session, SQLAlchemyConnection(connection), transaction, await _driver(connection)
            )
        except BaseException:
            await session.close()
            raise

    async def close(self) -> None:
        """See `Opener`."""


class SessionTransaction(EngineTransaction):
    """A transaction of an `AsyncSession`."""

    async def prepare(self) -> None:
        """See `Transaction`."""
        await self.connection.flush()
        await super().prepare()


async def _driver(connection: Any) -> DatabaseConnection:
    """Returns the driver's own connection, which knows the state of its transaction."""
    raw = await connection.get_raw_connection()
    return await adapt(raw.driver_connection)


def _dialect(engine: Any) -> Dialect:
    return "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
