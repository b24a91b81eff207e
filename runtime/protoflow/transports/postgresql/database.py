"""The connections of a transport: statements in transactions, without state of a session."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Protocol

import asyncpg

from protoflow.error_codes import NOT_OPEN
from protoflow.errors import AuthenticationError, ConnectionFailedError, TransportError
from protoflow.transport.kit.supervisor import describe
from protoflow.transport.settings import TransportSettings
from protoflow.transports.postgresql.connecting import Connector, Stateless
from protoflow.transports.postgresql.options import PostgresOptions

_log = logging.getLogger("protoflow.transports.postgresql")
#: What asyncpg raises if the server failed.
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.TimeoutError)
# The snapshot of the statement with the shift of the tables: see `transaction_ids`.
_SNAPSHOT = """(SELECT CASE shift WHEN 0 THEN pg_current_snapshot()
  ELSE {s}.shifted(pg_current_snapshot(), shift) END FROM {s}.meta)"""
#: Seconds that the server has to say goodbye.
_CLOSING = 5.0
_REFUSED = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class Connection(Protocol):
    """What is used of asyncpg's connection, which has no types of its own."""

    async def execute(self, query: str, *values: object) -> str:
        """Runs a statement."""
        ...

    async def fetch(self, query: str, *values: object) -> Sequence[Any]:
        """Returns all rows."""
        ...

    async def fetchrow(self, query: str, *values: object) -> Any:
        """Returns the first row, or None."""
        ...

    async def fetchval(self, query: str, *values: object) -> Any:
        """Returns the first value of the first row, or None."""
        ...


class Database:
    """One database in one process.

    Attributes:
        schema: the name of the PostgreSQL schema.
        topics: the ids of topics by name, as far as they were needed.
        problem: why the server cannot be used; None if it can.
    """

    def __init__(self, settings: TransportSettings, options: PostgresOptions) -> None:
        self.settings = settings
        self.options = options
        self.clock = settings.clock
        self.schema = options.schema
        self.topics: dict[str, int] = {}
        self.problem: str | None = None
        #: Replaces `{s}` and `{snapshot}` in a statement; each statement is made once.
        self.sql = functools.cache(
            lambda query: str.replace(query, "{snapshot}", _SNAPSHOT).replace("{s}", self.schema)
        )
        self._pool: Any = None  # Any: asyncpg has no types

    @property
    def idle_timeout(self) -> int:
        """Milliseconds after which the server ends a transaction whose process is gone: what it has
        locked, others wait for."""
        return max(1000, int(self.options.command_timeout * 1000))

    async def connect(self) -> None:
        """Opens the pool. Raises ConnectionFailedError or AuthenticationError."""
        try:
            self._pool = await asyncio.wait_for(
                asyncpg.create_pool(
                    **self.arguments(),
                    min_size=1,
                    max_size=self.options.connections,
                    command_timeout=self.options.command_timeout,
                    connection_class=Stateless,
                    connect=Connector(self.options.prepared_statements),
                ),
                self.settings.connect_timeout,
            )
        except _REFUSED as error:
            raise AuthenticationError(f"{self.settings.url.safe}: {error}") from error
        except (*FAILURES, ValueError) as error:
            raise ConnectionFailedError(f"{self.settings.url.safe}: {describe(error)}") from error

    async def disconnect(self) -> None:
        """Closes the connections."""
        if self._pool is not None:
            try:
                with contextlib.suppress(*FAILURES):  # what does not close is ended
                    await asyncio.wait_for(self._pool.close(), _CLOSING)
            finally:
                self.abort()

    def abort(self) -> None:
        """Ends the connections; whatever waits for an answer fails at once."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def arguments(self) -> dict[str, Any]:
        """Returns what asyncpg needs to connect."""
        url, options = self.settings.url, self.options
        user, password = options.login(url)
        hosts = url.hosts or (("localhost", None),)
        encrypted = url.scheme.endswith("+tls")
        context: ssl.SSLContext | None = options.tls_context(
            "postgresql", "postgresql+tls", encrypted=encrypted
        )
        return {
            "host": [host for host, _ in hosts],
            "port": [port or 5432 for _, port in hosts],
            "user": user or "postgres",
            "password": password.reveal() if password else None,
            "database": url.path.removeprefix("/") or user or "postgres",
            "ssl": context or False,
            "target_session_attrs": "read-write" if len(hosts) > 1 else "any",
            "timeout": self.settings.connect_timeout,
            "server_settings": {"application_name": self.settings.client_name},
        }

    @contextlib.asynccontextmanager
    async def transaction(self, *, relaxed: bool = False) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed on leaving.

        Args:
            relaxed: a crash of the server may undo it: for what is only done again then.

        Raises:
            TransportError: the server failed; after the last statement it is unknown whether the
                transaction was committed.
        """
        async with self._connection() as connection:
            if not relaxed:
                async with connection.transaction():
                    yield connection
                return
            await connection.execute(
                "BEGIN; SET LOCAL synchronous_commit = off; "
                f"SET LOCAL idle_in_transaction_session_timeout = {self.idle_timeout}"
            )
            try:
                yield connection
            except BaseException:
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:  # Any: asyncpg has no types
        """A connection of the pool. Raises TransportError."""
        if self._pool is None:
            raise TransportError("the transport is not open", code=NOT_OPEN)
        try:
            async with self._pool.acquire(timeout=self.options.command_timeout) as connection:
                yield connection
        except FAILURES as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # a rollback failed behind it
            self.problem = describe(error)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and self._pool is not None:
                await self._pool.expire_connections()  # it is no primary any more
            raise TransportError(f"PostgreSQL: {describe(error)}") from error
        self.problem = None

    async def fetch(self, query: str, *values: object) -> list[Any]:
        """Runs one statement, which is a transaction of its own."""
        async with self._connection() as connection:
            return list(await connection.fetch(self.sql(query), *values))

    async def check(self) -> None:
        """Clears `problem` if the server answers again: an idle process sends nothing."""
        if self.problem is not None:
            await self.fetch("SELECT 1")

    async def topic_ids(self, names: Collection[str]) -> dict[str, int]:
        """Returns the ids of topics, which are created if need be."""
        missing = [name for name in dict.fromkeys(names) if name not in self.topics]
        if missing:
            found = await self.fetch(
                "SELECT n, {s}.topic_id(n) FROM unnest($1::text[]) AS u(n)", missing
            )
            self.topics.update((name, id) for name, id in found)
        return self.topics
