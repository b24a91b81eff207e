"""A transaction of the application, on a connection of the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from protoflow.error_codes import LEASE_LOST
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
        self._settled: dict[PostgresSubscription, list[Settlement]] = {}
        self._batches: list[tuple[PostgresSubscription, SettlementBatch]] = []
        self._written: list[tuple[PostgresSubscription, Written]] = []
        self._complete = False
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
                raise TransportError(
                    "the lease of a delivery was lost, or it was settled before", code=LEASE_LOST
                )
            self._settled.setdefault(holder, []).append(settlement)
            batch = holder.settling((settlement,))
            holder.holdings.begin(batch.accepted)
            self._batches.append((holder, batch))

    async def write(self, turns: AsyncExitStack) -> None:
        """Writes what is settled, each member's in its turn: shortly before the commit, for others
        wait. Raises TransportError if a lease was lost."""
        topics = {
            holder: await holder.settler.output_topics(settlements)
            for holder, settlements in self._settled.items()
        }
        for holder in sorted(self._settled, key=id):  # all alike, so that nobody waits in a circle
            await turns.enter_async_context(holder.holdings.turn.taken())
            settlements = self._settled[holder]
            written = await holder.settler.write(self._connection, settlements, topics[holder])
            if {*written.results} != {SettleResult.DONE}:
                raise TransportError(
                    "a delivery could not be settled: its lease was lost, or an output refused",
                    code=LEASE_LOST,
                )
            self._written.append((holder, written))
            self.topics |= {*written.topics}
        self._complete = True

    def committed(self) -> None:
        """Takes note of what is settled."""
        for _, written in self._written:
            written.committed()
        for holder, batch in self._batches:
            holder.holdings.end(batch.accepted)
            batch.confirm([SettleResult.DONE] * len(batch.accepted))

    def failed(self) -> None:
        """What was to be settled is held as before; perhaps it is committed nevertheless."""
        if self._complete:
            for holder, written in self._written:
                holder.settler.unanswered(written)
        for holder, batch in self._batches:
            holder.holdings.end(batch.accepted)
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
    async with AsyncExitStack() as turns:
        try:
            async with database.transaction() as connection:
                opened = PostgresTransaction(holders, database, limits, connection)
                yield opened
                await opened.write(turns)
        except BaseException:
            if opened is not None:
                opened.failed()
            raise
        opened.committed()
    if opened.topics:
        published(opened.topics)
