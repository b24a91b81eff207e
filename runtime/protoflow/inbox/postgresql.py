"""Transactions of asyncpg and psycopg pools. Neither library is imported."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Generic, TypeVar

from protoflow.database.interface import Dialect
from protoflow.database.postgresql import (
    AsyncpgConnection,
    PsycopgConnection,
    SyncPsycopgConnection,
)
from protoflow.inbox.failures import StatementFailed

T = TypeVar("T", AsyncpgConnection, PsycopgConnection, SyncPsycopgConnection)

#: PQTRANS_INERROR of libpq: a statement failed.
_FAILED: Final = 3


class _Pool:
    """A pool that the user owns and closes."""

    dialect: Dialect = "postgresql"

    def __init__(self, pool: Any) -> None:  # Any: neither library is imported
        self._pool = pool

    async def close(self) -> None:
        """See `Opener`."""


class _Transaction(Generic[T]):
    """A transaction whose driver knows whether it is open."""

    database: T

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        return self.database.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return self.database.closed


class AsyncpgPool(_Pool):
    """An asyncpg pool."""

    async def begin(self) -> AsyncpgTransaction:
        """See `Opener`."""
        transaction, _ = await self.begin_with("")
        return transaction

    async def begin_with(self, statements: str) -> tuple[AsyncpgTransaction, bool]:
        """See `QuickOpener`."""
        connection = await self._pool.acquire()
        transaction = AsyncpgTransaction(self._pool, connection)
        try:
            inserted = await transaction.begin(statements)
        except BaseException:
            await transaction.close()
            raise
        return transaction, inserted


class AsyncpgTransaction(_Transaction[AsyncpgConnection]):
    """A transaction on a connection of an asyncpg pool."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self._transaction = connection.transaction()
        self._sent = _Sent(self._transaction._connection)
        self._transaction._connection = self._sent
        self.commit = self._transaction.commit
        self.connection = connection
        self.database = AsyncpgConnection(connection)

    async def begin(self, statements: str) -> bool:
        """Begins with statements, if there are any; whether the last one inserted a row."""
        self._sent.first = statements
        await self._transaction.start()
        if self._sent.error is not None:
            raise self._sent.error
        return self._sent.status != "INSERT 0 0"

    async def prepare(self) -> None:
        """See `Transaction`."""

    async def close(self) -> None:
        """See `Transaction`."""
        try:
            if self.database.in_transaction:
                with contextlib.suppress(Exception):  # the server rolls back a lost connection
                    await self._transaction.rollback()
        finally:  # the task was cancelled a second time
            with contextlib.suppress(Exception):  # the pool was closed
                await self._pool.release(self.connection)


class _Sent:
    """The connection to which a transaction of asyncpg sends its statements.

    asyncpg does not report that a transaction failed, or that the server answered a COMMIT with
    ROLLBACK. A failed transaction refuses the SELECT, which is sent together with the COMMIT.

    Attributes:
        first: statements that are sent together with BEGIN.
        status: what the server answered to the last of them.
        error: why one failed. The transaction has begun, and can be rolled back.
    """

    __slots__ = ("_real", "error", "first", "status")
    first: str
    status: str
    error: Exception | None

    def __init__(self, connection: Any) -> None:
        object.__setattr__(self, "_real", connection)
        self.first, self.status, self.error = "", "", None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._real, name, value)

    async def execute(self, query: str) -> Any:
        """Executes a statement of the transaction itself."""
        if query == "COMMIT;":
            return await self._commit()
        if not self.first:
            return await self._real.execute(query)
        query, self.first = query + self.first, ""
        try:
            self.status = await self._real.execute(query)
        except Exception as error:
            if not self._real.is_in_transaction():
                raise
            self.error = error
        return None

    async def _commit(self) -> Any:
        try:
            return await self._real.execute("SELECT 1; COMMIT")
        except Exception:
            if self._real.is_in_transaction():  # the SELECT was refused
                with contextlib.suppress(Exception):  # the server rolls back a lost connection
                    await self._real.execute("ROLLBACK")
            raise


class PsycopgPool(_Pool):
    """A psycopg `AsyncConnectionPool`."""

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


class PsycopgTransaction(_Transaction[PsycopgConnection]):
    """A transaction on a connection of psycopg."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        #: Its commit() and rollback() are refused inside the block.
        self.block = connection.transaction()
        self.connection = connection
        self.database = PsycopgConnection(connection)

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
                with contextlib.suppress(Exception):  # the server rolls back a lost connection
                    await self.block.__aexit__(_RolledBack, _RolledBack(), None)
        finally:  # the task was cancelled a second time
            with contextlib.suppress(Exception):  # the pool was closed
                await self._pool.putconn(self.connection)


class SyncPsycopgPool(_Pool):
    """A psycopg `ConnectionPool`."""

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


class SyncPsycopgTransaction(_Transaction[SyncPsycopgConnection]):
    """A transaction on a connection of psycopg, in a thread."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self.block = connection.transaction()
        self.connection = connection
        self.database = SyncPsycopgConnection(connection)

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
            with contextlib.suppress(Exception):  # the server rolls back a lost connection
                self.block.__exit__(_RolledBack, _RolledBack(), None)
        with contextlib.suppress(Exception):  # the pool was closed
            self._pool.putconn(self.connection)


class _RolledBack(Exception):  # noqa: N818  the name states what happened
    """Ends a block of psycopg without a commit."""
