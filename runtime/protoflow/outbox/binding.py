"""Publishing in a transaction of the application: messages exist if it commits.

If the transport keeps its topics in the database of the given connection, messages are written
there. For other transports they are written to the outbox of that database, and a relay publishes
them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from protoflow.database import (
    DatabaseConnection,
    Dialect,
    Insertion,
    SyncDatabaseConnection,
    TransactionWatch,
    adapt,
)
from protoflow.error_codes import DATABASE, DATABASE_TABLE
from protoflow.errors import ConfigError, PublishError
from protoflow.message import Message
from protoflow.outbox.tables import insertion
from protoflow.publishing.event_publisher import EventPublisher
from protoflow.transport.interface import SqlLog, Transport

if TYPE_CHECKING:
    from protoflow.contract.spec import PublicationSpec
    from protoflow.output import AnyOutput
    from protoflow.publishing.publisher import MessagePublisher
    from protoflow.publishing.submitter import Results

T = TypeVar("T")

#: The error texts of databases for a missing table or function.
_MISSING = ("no such table", "does not exist")
_NO_TRANSACTION = (
    "the connection has no open transaction, so the message would not depend on one; begin a "
    "transaction before publishing, or leave out in_="
)


class Destination:
    """The destination of messages in a transaction, which depends on its database.

    Args:
        transport: the transport of the publisher.
        committed: wakes the relay of this process; None if there is none.
    """

    def __init__(self, transport: Transport, committed: Callable[[], None] | None = None) -> None:
        self._transport = transport
        self._committed = committed
        self._watch: TransactionWatch | None = None

    def log_of(self, dialect: Dialect) -> SqlLog | None:
        """Returns the transport if it keeps its topics in a database of this kind."""
        log = self._transport
        return log if isinstance(log, SqlLog) and log.dialect == dialect else None

    async def insertion(self, dialect: Dialect, messages: Sequence[Message]) -> Insertion:
        """Returns the statement that writes messages. Raises PublishError."""
        log = self.log_of(dialect)
        return insertion(dialect, messages) if log is None else await log.insertion(messages)

    def written(
        self, connection: DatabaseConnection | SyncDatabaseConnection, messages: Sequence[Message]
    ) -> None:
        """Wakes consumers after the transaction with their messages has ended."""
        log = self.log_of(connection.dialect)
        topics: Collection[str] = {message.topic for message in messages}
        wake = self._committed if log is None else lambda: log.published(topics)
        if wake is None:
            return
        if self._watch is None:
            self._watch = TransactionWatch()
        self._watch.add(connection, wake)

    def close(self) -> None:
        """Stops waking."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class _Writer:
    """Writes messages in the transaction that is open on a connection."""

    def __init__(self, destination: Destination, connection: object) -> None:
        self._destination = destination
        self._connection = connection

    async def publish(self, messages: Sequence[Message]) -> Results:
        """Writes messages; errors of the driver are not changed. Raises PublishError."""
        connection = await adapt(self._connection)
        refuse_autocommit(connection)
        statement, rows = await self._destination.insertion(connection.dialect, messages)
        try:
            await connection.execute_many(statement, rows)
        except Exception as error:
            explain(error, connection.dialect)
            raise
        self._destination.written(connection, messages)
        return [None] * len(messages)


def bind(
    publisher: MessagePublisher, destination: Destination, connection: object
) -> EventPublisher:
    """Returns a publisher whose messages are written in a transaction of a connection.

    Args:
        publisher: encodes.
        destination: selects where messages are written.
        connection: a connection of asyncpg, psycopg, SQLAlchemy, sqlite3 or aiosqlite.
    """
    return EventPublisher(publisher.through(_Writer(destination, connection).publish))


def refuse_autocommit(connection: DatabaseConnection | SyncDatabaseConnection) -> None:
    """Raises ConfigError if messages would be committed immediately."""
    if connection.autocommits:
        raise ConfigError(_NO_TRANSACTION, code=DATABASE)


def explain(error: Exception, dialect: Dialect) -> None:
    """Raises PublishError if a driver's error means that Protoflow's tables are missing."""
    text = str(error)
    if any(phrase in text for phrase in _MISSING) and "protoflow" in text:
        raise PublishError(
            "the database of the connection has no table for the message: "
            f"{text.splitlines()[0]}; start the relay once, or create the tables of "
            f'protoflow.outbox.schema("{dialect}") in a migration',
            code=DATABASE_TABLE,
        ) from error


class SyncBoundPublisher:
    """Publishes in a transaction of code without an event loop; a `SyncPublisher`.

    Args:
        publisher: encodes, on its event loop.
        destination: selects where messages are written.
        connection: the connection; it is used in the caller's thread.
        run: runs a coroutine on the event loop of the publisher, and waits.
        call: calls a function on that event loop, without waiting.
    """

    def __init__(
        self,
        publisher: MessagePublisher,
        destination: Destination,
        connection: SyncDatabaseConnection,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        call: Callable[..., object],
    ) -> None:
        self._publisher = publisher
        self._destination = destination
        self._connection = connection
        self._run = run
        self._call = call

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs and returns their ids. See `SyncPublisher`."""
        return self._write(lambda events: events.publish_outputs(publication, outputs))

    def publish(self, *messages: Message) -> None:
        """Publishes raw messages. Raises PublishError."""
        self._write(lambda events: events.publish(*messages))

    def _write(self, publish: Callable[[EventPublisher], Awaitable[T]]) -> T:
        refuse_autocommit(self._connection)
        result: T
        result, messages, (statement, rows) = self._run(self._encode(publish))
        try:
            self._connection.execute_many(statement, rows)
        except Exception as error:
            explain(error, self._connection.dialect)
            raise
        self._call(self._destination.written, self._connection, messages)
        return result

    async def _encode(
        self, publish: Callable[[EventPublisher], Awaitable[T]]
    ) -> tuple[T, list[Message], Insertion]:
        messages: list[Message] = []

        async def keep(given: Sequence[Message]) -> Results:
            messages.extend(given)
            return [None] * len(given)

        result = await publish(EventPublisher(self._publisher.through(keep)))
        insertion = await self._destination.insertion(self._connection.dialect, messages)
        return result, messages, insertion
