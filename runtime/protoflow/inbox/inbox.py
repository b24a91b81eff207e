"""The inbox of a service: opens the transactions of handlers and records their messages."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from protoflow.context import CONNECTION, Context
from protoflow.database.interface import Dialect
from protoflow.error_codes import DATABASE, NO_TRANSACTION
from protoflow.errors import ConfigError, ProtoflowError
from protoflow.inbox.cleanup import Cleanup
from protoflow.inbox.recognition import openers
from protoflow.inbox.setup import prepare, prepare_sync
from protoflow.inbox.table import Table

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    import asyncpg
    import psycopg
    import psycopg_pool
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_sessionmaker,
    )

    from protoflow.sync_context import SyncContext

_log = logging.getLogger("protoflow.inbox")
T = TypeVar("T")

_RETENTION: Final = timedelta(days=7)
_LOCK_TIMEOUT: Final = timedelta(seconds=5)


class Inbox(Generic[T]):
    """Provides exactly-once effects in the database that handlers write to.

    For each run of a handler with `effects: EFFECTS_EXACTLY_ONCE` it opens a transaction, records
    the message in the table `protoflow_inbox`, and commits when the handler has returned. A message
    that is already recorded is acknowledged without a run.

    Args:
        resource: an asyncpg `Pool`, a psycopg `AsyncConnectionPool`, a SQLAlchemy `AsyncEngine` or
            `async_sessionmaker`, or the path of a SQLite file. For handlers in threads a psycopg
            `ConnectionPool`, or the path of a SQLite file. The user owns it and closes it.
        retention: how long a message stays recorded.
        lock_timeout: how long a run waits for a run of the same message in another process.
    """

    @overload
    def __init__(
        self: Inbox[sqlite3.Connection], resource: Path | str, *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Inbox[psycopg.AsyncConnection[Any]],
        resource: psycopg_pool.AsyncConnectionPool[Any], *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Inbox[psycopg.Connection[Any]], resource: psycopg_pool.ConnectionPool[Any], *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Inbox[AsyncSession], resource: async_sessionmaker[AsyncSession], *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Inbox[AsyncConnection], resource: AsyncEngine, *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Inbox[asyncpg.pool.PoolConnectionProxy], resource: asyncpg.Pool, *,
        retention: timedelta = ..., lock_timeout: timedelta = ...,
    ) -> None: ...  # fmt: skip
    def __init__(
        self, resource: object, *, retention: timedelta = _RETENTION,
        lock_timeout: timedelta = _LOCK_TIMEOUT,
    ) -> None:  # fmt: skip
        self.opener, self.sync_opener = openers(resource)
        either = self.opener or self.sync_opener
        if either is None:
            raise ConfigError(
                "an inbox needs a pool, an engine or the path of a file", code=DATABASE
            )
        if retention <= timedelta(0) or lock_timeout <= timedelta(0):
            raise ConfigError(
                "retention and lock_timeout of an inbox must be more than 0", code=DATABASE
            )
        self.retention = retention.total_seconds()
        self.dialect: Dialect = either.dialect
        self.table = Table(self.dialect, lock_timeout.total_seconds())
        self._closes = either.close
        self._cleanup: asyncio.Task[None] | None = None
        #: Why transactions cannot be opened; readiness shows it.
        self.problem: str | None = None

    def of(self, context: Context | SyncContext) -> T:
        """Returns the connection or session of the run, in the transaction of the inbox.

        Raises:
            ProtoflowError: the handler has no exactly-once effects, or its run has ended.
        """
        own = context if isinstance(context, Context) else context.context
        connection = own.values.get(CONNECTION)
        if connection is None:
            raise ProtoflowError(
                f"{own.handler}: no transaction of an inbox is open; set "
                "effects: EFFECTS_EXACTLY_ONCE on the method, and use the context during its run",
                code=NO_TRANSACTION,
            )
        return cast("T", connection)

    async def open(self, *, create: bool, outbox: bool = False) -> None:
        """Creates or verifies the table, and starts to clean it; for the service. With `outbox`,
        this includes the table of the outbox.

        Raises:
            ConfigError: the table does not exist, or does not have the form of this version.
        """
        if self.opener is not None:
            await prepare(self.opener, self.table, create=create, outbox=outbox)
        elif self.sync_opener is not None:
            await asyncio.to_thread(
                prepare_sync, self.sync_opener, self.table, create=create, outbox=outbox
            )
        cleanup = Cleanup(self.opener, self.sync_opener, self.table, self.retention)
        self._cleanup = asyncio.create_task(cleanup.run())

    async def close(self) -> None:
        """Ends the cleanup; for the service."""
        if self._cleanup is not None:
            self._cleanup.cancel()
            await asyncio.wait([self._cleanup])
            self._cleanup = None
        await self._closes()

    def failed(self, error: Exception) -> None:
        """Records that no transaction could be opened; for the runtime."""
        if self.problem is None:
            _log.warning("a transaction of the inbox was not opened", extra={"error": str(error)})
        self.problem = f"no transaction can be opened: {type(error).__name__}: {error}"

    def works(self) -> None:
        """Records that a transaction was opened; for the runtime."""
        if self.problem is not None:
            self.problem = None
            _log.info("transactions of the inbox are opened again")
