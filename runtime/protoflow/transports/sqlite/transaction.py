"""A transaction of the application, on its own connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from protoflow.error_codes import LEASE_LOST, NO_SUBSCRIBER
from protoflow.errors import TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.transport.kit.settlement_batch import SettlementBatch
from protoflow.transports.sqlite.database import Database
from protoflow.transports.sqlite.publishing import Outgoing
from protoflow.transports.sqlite.schema import connect
from protoflow.transports.sqlite.settle_job import SettleJob
from protoflow.transports.sqlite.subscription import SqliteSubscription
from protoflow.transports.sqlite.worker import explain

T = TypeVar("T")
Holders = Iterable[SqliteSubscription]


class SqliteTransaction:
    """Writes of the application, messages and settlements that are committed together.

    While it is open, no other writer can use the file. So it should be short, and must not wait for
    a publish or a settlement outside of it.
    """

    def __init__(
        self, holders: Holders, database: Database, connection: sqlite3.Connection
    ) -> None:
        self._holders = holders
        self._database = database
        self._connection = connection
        self._batches: list[tuple[SettlementBatch, SettleJob]] = []
        self._topics: set[str] = set()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, in a transaction. Any thread may use it, one at a time. It must not be
        committed."""
        return self._connection

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit. Raises PublishError."""
        outgoing = Outgoing()
        if refused := outgoing.add(messages, self._database.clock.now(), self._database.limits):
            raise next(iter(refused.values()))
        await run(lambda: outgoing.write(self._connection))
        self._topics |= outgoing.topics.keys()

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit. Raises TransportError if a lease was lost."""
        for settlement in settlements:
            holder = next(
                (each for each in self._holders if each.leases.holds(settlement.delivery)), None
            )
            if holder is None:
                raise TransportError(
                    "the lease of a delivery was lost, or it was settled before", code=LEASE_LOST
                )
            job, batch = holder.new_job(None), holder.settling((settlement,))
            self._batches.append((batch, job))
            job.add(batch.accepted, self._database.clock.now(), self._database.limits)
            if job.answers != [SettleResult.DONE]:
                answer = (job.answers or batch.results)[0]
                raise TransportError(
                    f"a delivery could not be settled: {answer.name}", code=LEASE_LOST
                )
            if not await run(partial(job.run, self._connection)):
                raise TransportError("the lease of a delivery was lost", code=LEASE_LOST)
            if job.answers != [SettleResult.DONE]:
                raise TransportError(
                    "no group consumes an output, and require_subscriber is set", code=NO_SUBSCRIBER
                )

    def committed(self) -> None:
        """Notes the settled messages, and wakes subscriptions."""
        for batch, job in self._batches:
            batch.confirm(job.answers)
            job.done(True)
        if self._topics:
            self._database.published(self._topics)

    def rolled_back(self) -> None:
        """Restores the held messages after a rollback."""
        for batch, _ in self._batches:
            batch.unknown()


@asynccontextmanager
async def transaction(holders: Holders, database: Database) -> AsyncIterator[SqliteTransaction]:
    """Begins a transaction, which is rolled back on an exception. Raises TransportError."""
    connection = await _finished(partial(_begin, database))
    try:
        open_transaction = SqliteTransaction(holders, database, connection)
        try:
            yield open_transaction
            await _finished(partial(_commit, database, connection))
        except BaseException:
            open_transaction.rolled_back()
            raise
        open_transaction.committed()
    finally:
        await _finished(partial(_end, database, connection))


async def run(function: Callable[[], T]) -> T:
    """Runs a function in a thread. Raises its ProtoflowError, or TransportError."""
    try:
        return await asyncio.to_thread(function)
    except sqlite3.Error as error:
        raise TransportError(explain(error)) from error


async def _finished(function: Callable[[], T]) -> T:
    """Waits until a function has ended in the thread, even if the caller is cancelled."""
    task = asyncio.ensure_future(run(function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _begin(database: Database) -> sqlite3.Connection:
    writing = database.worker.writing
    if not writing.acquire(timeout=max(0.001, database.options.busy_timeout)):
        raise sqlite3.OperationalError("database is locked by a transaction of this process")
    try:
        database.check_location()
        connection = connect(database.path, database.options)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
    except BaseException:
        writing.release()
        raise
    return connection


def _commit(database: Database, connection: sqlite3.Connection) -> None:
    database.check_location()
    connection.execute("COMMIT")


def _end(database: Database, connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()
    finally:
        database.worker.writing.release()
