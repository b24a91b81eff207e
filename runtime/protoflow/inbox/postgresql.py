"""Transactions of asyncpg's and psycopg's pools. Neither is imported: a pool is given."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from protoflow.database.interface import Dialect
from protoflow.database.postgresql import (
    AsyncpgConnection,
    PsycopgConnection,
    SyncPsycopgConnection,
)
from protoflow.inbox.failures import StatementFailed

#: libpq's PQTRANS_INERROR: a statement failed.
_FAILED: Final = 3


class AsyncpgPool:
    """An asyncpg pool."""

    dialect: Dialect = "postgresql"

    def __init__(self, pool: Any) -> None:  # Any: asyncpg has no types
        self._pool = pool

    async def begin(self) -> AsyncpgTransaction:
        """See `Opener`."""
        connection = await self._pool.acquire()
        transaction = AsyncpgTransaction(self._pool, connection)
        try:
            await transaction.begin()
        except BaseException:
            await transaction.close()
            raise
        return transaction

    async def close(self) -> None:
        """See `Opener`."""


class AsyncpgTransaction:
    """A transaction on a connection of an asyncpg pool."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self._transaction = connection.transaction()
        self.begin = self._transaction.start
        self.commit = self._transaction.commit
        self.connection = connection
        self.database = AsyncpgConnection(connection)

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        return self.database.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return self.database.closed

    async def prepare(self) -> None:
        """See `Transaction`."""
        # asyncpg hides both the state and the answer to COMMIT; a failed transaction refuses this.
        await self.connection.execute("SELECT 1")

    async def close(self) -> None:
        """See `Transaction`."""
        try:
            if self.database.in_transaction:
                with contextlib.suppress(Exception):
                    await self._transaction.rollback()
        finally:  # cancelled a second time, too
            with contextlib.suppress(Exception):
                await self._pool.release(self.connection)


class PsycopgPool:
    """A psycopg `AsyncConnectionPool`."""

    dialect: Dialect = "postgresql"

    def __init__(self, pool: Any) -> None:  # Any: psycopg is not imported
        self._pool = pool

    async def begin(self) -> PsycopgTransaction:
        """See `Opener`."""
        connection = await self._pool.getconn()
        transaction = PsycopgTransaction(self._pool, connection)
        try:
            await transaction.block.__aenter__()
        except BaseException:
            await transaction.close()
            raise
        return transaction

    async def close(self) -> None:
        """See `Opener`."""


class PsycopgTransaction:
    """A transaction on a connection of psycopg."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        #: Its commit() and rollback() are refused inside of the block.
        self.block = connection.transaction()
        self.connection = connection
        self.database = PsycopgConnection(connection)

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        return self.database.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return self.database.closed

    async def prepare(self) -> None:
        """See `Transaction`."""
        if self.connection.info.transaction_status == _FAILED:
            raise StatementFailed

    async def commit(self) -> None:
        """See `Transaction`."""
        await self.block.__aexit__(None, None, None)

    async def close(self) -> None:
        """See `Transaction`."""
        try:
            if self.database.in_transaction:
                with contextlib.suppress(Exception):
                    await self.block.__aexit__(_RolledBack, _RolledBack(), None)
        finally:  # cancelled a second time, too
            with contextlib.suppress(Exception):
                await self._pool.putconn(self.connection)


class SyncPsycopgPool:
    """A psycopg `ConnectionPool`."""

    dialect: Dialect = "postgresql"

    def __init__(self, pool: Any) -> None:  # Any: psycopg is not imported
        self._pool = pool

    def begin_sync(self) -> SyncPsycopgTransaction:
        """See `SyncOpener`."""
        connection = self._pool.getconn()
        transaction = SyncPsycopgTransaction(self._pool, connection)
        try:
            transaction.block.__enter__()
        except BaseException:
            transaction.close()
            raise
        return transaction

    async def close(self) -> None:
        """See `SyncOpener`."""


class SyncPsycopgTransaction:
    """A transaction on a connection of psycopg, in a thread."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self.block = connection.transaction()
        self.connection = connection
        self.database = SyncPsycopgConnection(connection)

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        return self.database.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return self.database.closed

    def prepare(self) -> None:
        """See `SyncTransaction`."""
        if self.connection.info.transaction_status == _FAILED:
            raise StatementFailed

    def commit(self) -> None:
        """See `SyncTransaction`."""
        self.block.__exit__(None, None, None)

    def close(self) -> None:
        """See `SyncTransaction`."""
        if self.database.in_transaction:
            with contextlib.suppress(Exception):
                self.block.__exit__(_RolledBack, _RolledBack(), None)
        with contextlib.suppress(Exception):
            self._pool.putconn(self.connection)


class _RolledBack(Exception):  # noqa: N818  a name of what happened
    """Ends a block of psycopg without a commit."""
