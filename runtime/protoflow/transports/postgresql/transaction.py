"""A transaction of the application, on a connection of the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

from protoflow.errors import TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.transport.kit.settlement_batch import SettlementBatch
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.publishing import Limits, publish
from protoflow.transports.postgresql.rows import Columns
from protoflow.transports.postgresql.settling import Written
from protoflow.transports.postgresql.subscription import PostgresSubscription


class PostgresTransaction:
    """Writes of the application, messages and settlements that are committed together."""

    def __init__(
        self,
        holders: Iterable[PostgresSubscription],
        database: Database,
        limits: Limits,
        connection: Connection,
    ) -> None:
        self._holders = holders
        self._database = database
        self._limits = limits
        self._connection = connection
        self._settled: list[tuple[PostgresSubscription, SettlementBatch, Written]] = []
        self.topics: set[str] = set()

    @property
    def connection(self) -> Connection:
        """The asyncpg connection, in a transaction; it must not be committed."""
        return self._connection

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit. Raises PublishError."""
        columns = Columns()
        for message in messages:
            columns.add(message, self._limits.bound(message.topic))
        ids = await self._database.topic_ids({*columns.topics})
        await publish(self._database, self._connection, columns, ids)
        self.topics |= {*columns.topics}

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit. Raises TransportError if a lease was lost."""
        for settlement in settlements:
            holder = next(
                (each for each in self._holders if each.leases.holds(settlement.delivery)), None
            )
            if holder is None:
                raise TransportError("the lease of a delivery was lost, or it was settled before")
            batch, settler = holder.settling((settlement,)), holder.settler
            holder.holdings.begin((settlement,))
            topics = await settler.output_topics(batch.accepted)
            earlier = [
                each
                for other, _, before in self._settled
                if other is holder
                for each in before.settlements
            ]
            written = await settler.write(self._connection, batch.accepted, topics, earlier)
            self._settled.append((holder, batch, written))
            if list(written.results) != [SettleResult.DONE]:
                raise TransportError(
                    "a delivery could not be settled: its lease was lost, or an output refused"
                )
            self.topics |= {*written.topics}

    def committed(self) -> None:
        """Takes note of what is settled."""
        for holder, batch, written in self._settled:
            written.committed()
            holder.holdings.end(written.settlements)
            batch.confirm(written.results)

    def rolled_back(self) -> None:
        """Restores the held messages after a rollback."""
        for holder, batch, written in self._settled:
            holder.holdings.end(written.settlements)
            batch.unknown()


@asynccontextmanager
async def transaction(
    holders: Iterable[PostgresSubscription],
    database: Database,
    limits: Limits,
    published: Callable[[Collection[str]], None],
) -> AsyncIterator[PostgresTransaction]:
    """Begins a transaction; it commits at the end of the block, or rolls back on an exception."""
    opened: PostgresTransaction | None = None
    try:
        async with database.transaction() as connection:
            opened = PostgresTransaction(holders, database, limits, connection)
            yield opened
    except BaseException:
        if opened is not None:
            opened.rolled_back()
        raise
    opened.committed()
    if opened.topics:
        published(opened.topics)
