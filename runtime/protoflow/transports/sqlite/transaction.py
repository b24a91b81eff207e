"""A transaction of the application, on a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from protoflow.errors import TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.transports.sqlite.acknowledging import Settlements
from protoflow.transports.sqlite.publishing import Outgoing
from protoflow.transports.sqlite.schema import connect
from protoflow.transports.sqlite.worker import explain

if TYPE_CHECKING:
    from protoflow.transports.sqlite.transport import SqliteTransport

T = TypeVar("T")


class SqliteTransaction:
    """Writes of the application, messages and settlements that are committed together.

    While it is open nobody else writes to the file, so it should be short, and nothing in
    it may wait for a publish or a settlement that does not go through it.
    """

    def __init__(self, transport: SqliteTransport, connection: sqlite3.Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._settlements: list[Settlements] = []
        self._topics: set[str] = set()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, in a transaction; it may be used in any thread, one at a time,
        and must not be committed."""
        return self._connection

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit. Raises PublishError."""
        outgoing = Outgoing()
        limits = self._transport.limits
        if refused := outgoing.add(messages, self._transport.clock.now(), limits):
            raise next(iter(refused.values()))
        await run(lambda: outgoing.write(self._connection))
        self._topics |= outgoing.topics.keys()

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit. Raises TransportError if a lease was lost."""
        for settlement in settlements:
            job = self._transport.settlements_for(settlement.delivery)
            if job is None:
                raise TransportError("the lease of a delivery was lost, or it was settled before")
            self._settlements.append(job)
            job.add((settlement,), self._transport.clock.now(), self._transport.limits)
            if job.answers != [SettleResult.DONE]:
                raise TransportError(f"a delivery could not be settled: {job.answers[0].name}")
            if not await run(partial(job.run, self._connection)):
                raise TransportError("the lease of a delivery was lost")
            if job.refused:
                raise TransportError("no group consumes an output, and require_subscriber is set")

    def committed(self) -> None:
        """Tells the subscriptions."""
        for job in self._settlements:
            job.done(True)
        if self._topics:
            self._transport.published(self._topics)

    def rolled_back(self) -> None:
        """What was to be settled is held as before."""
        for job in self._settlements:
            job.restore()


@asynccontextmanager
async def transaction(transport: SqliteTransport) -> AsyncIterator[SqliteTransaction]:
    """Begins; commits on leaving, rolls back on an exception. Raises TransportError."""
    connection = await _finished(partial(_begin, transport))
    try:
        open_transaction = SqliteTransaction(transport, connection)
        try:
            yield open_transaction
            await _finished(partial(_commit, transport, connection))
        except BaseException:
            open_transaction.rolled_back()
            raise
        open_transaction.committed()
    finally:
        await _finished(partial(_end, transport, connection))


async def run(function: Callable[[], T]) -> T:
    """Runs a function in a thread. Raises its ProtoflowError, or TransportError."""
    try:
        return await asyncio.to_thread(function)
    except sqlite3.Error as error:
        raise TransportError(explain(error)) from error


async def _finished(function: Callable[[], T]) -> T:
    """The same to the end, even if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(run(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _begin(transport: SqliteTransport) -> sqlite3.Connection:
    writing = transport.worker.writing
    if not writing.acquire(timeout=max(0.001, transport.options.busy_timeout)):
        raise sqlite3.OperationalError("database is locked by a transaction of this process")
    try:
        transport.check_place()
        connection = connect(transport.path, transport.options)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
    except BaseException:
        writing.release()
        raise
    return connection


def _commit(transport: SqliteTransport, connection: sqlite3.Connection) -> None:
    transport.check_place()
    connection.execute("COMMIT")


def _end(transport: SqliteTransport, connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()
    finally:
        transport.worker.writing.release()
