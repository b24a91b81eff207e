"""The PostgreSQL transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from protoflow.contract.spec import Start
from protoflow.database.interface import Dialect, Insertion
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import PublishError, TopologyError
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.kit.periodic import Periodic
from protoflow.transport.lag import Lag
from protoflow.transport.message_finder import FoundMessages, MessageQuery
from protoflow.transport.topic_reader import Point, TopicRecord
from protoflow.transports.postgresql import tables
from protoflow.transports.postgresql import topology as topologies
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.dead_letters import PostgresDeadLetterStore
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.message_finder import find_message
from protoflow.transports.postgresql.notifications import Notifications
from protoflow.transports.postgresql.options import PostgresOptions
from protoflow.transports.postgresql.publishing import Limits, Publisher, insertion
from protoflow.transports.postgresql.subscription import PostgresSubscription
from protoflow.transports.postgresql.topic_reader import read_topic
from protoflow.transports.postgresql.transaction import PostgresTransaction, transaction

#: Seconds between checks of the server while the last statement has failed.
_CHECK: Final = 5.0


class PostgresTransport:
    """Topics and groups in a database."""

    dialect: Dialect = "postgresql"

    def __init__(self, settings: TransportSettings, options: PostgresOptions) -> None:
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            retry_lateness=1.0,
            persists_attempts=True,
            counts_deliveries=True,
            atomic=True,
            dead_letters=True,
            leases=True,
            lag=True,
            broadcast=True,
            max_message_bytes=options.max_message_bytes,
            proves_killers=True,
            reads_topics=True,
            keeps_settled=True,
            ordered_replays=True,
        )
        self.creates_tables = settings.topology is TopologyMode.CREATE
        self._database = Database(settings, options)
        self._limits = Limits(options.max_message_bytes)
        self._publisher = Publisher(self._database, self._limits, self.published)
        self._checks = Periodic(_CHECK, self._database.check)
        self._notifications: Notifications | None = None
        self._subscriptions: list[PostgresSubscription] = []
        self.dead_letters = PostgresDeadLetterStore(self._database, self.published)

    async def open(self) -> None:
        """Connects, and creates the tables in an empty schema."""
        await self._database.connect()
        try:
            await tables.check(self._database, self.creates_tables)
            self._notifications = Notifications(self._database, self._wake)
            self._checks.start()
        except BaseException:
            await self._database.disconnect()
            raise

    async def close(self) -> None:
        """Gives back what was not settled, writes what was submitted, and disconnects."""
        notifications, self._notifications = self._notifications, None
        subscriptions, self._subscriptions = self._subscriptions, []
        if notifications is None:
            return
        closing = asyncio.ensure_future(self._give_back(subscriptions))
        try:
            await asyncio.wait([closing])  # a gather would wait for what it cancels
            await notifications.stop()
            await self._database.disconnect()
        except asyncio.CancelledError:
            self._database.abort()
            notifications.abort()
            closing.cancel()
            for subscription in subscriptions:
                subscription.abort()
            raise
        closing.result()

    async def _give_back(self, subscriptions: Sequence[PostgresSubscription]) -> None:
        await self._checks.stop()
        await asyncio.gather(*(each.close() for each in subscriptions))
        await self._publisher.close()

    async def apply_tables(self) -> None:
        """See `KeepsTables`."""
        await self._database.connect()
        try:
            await tables.apply(self._database)
        finally:
            await self._database.disconnect()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes topics and groups, or reports which are missing."""
        self.dead_letters.sources.add(topology.subscriptions)
        for each in topology.subscriptions:
            self._limits.dead_letter_topics |= {*each.dead_letter_topics}
        if mode is TopologyMode.CREATE:
            await topologies.make(self._database, topology)
        elif mode is TopologyMode.VERIFY:
            lacking = await topologies.missing(self._database, topology)
            if lacking:
                raise TopologyError(
                    f"missing in schema {self._database.schema}: {', '.join(lacking)}; start once"
                    " with topology mode create",
                    code=TOPOLOGY_MISSING,
                )

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes with what else is being written."""
        return self._publisher.submit(messages)

    async def insertion(self, messages: Sequence[Message]) -> Insertion:
        """See `protoflow.transport.SqlLog`."""
        return await insertion(self._database, self._limits, messages)

    def published(self, topics: Collection[str]) -> None:
        """See `protoflow.transport.SqlLog`."""
        if topics and self._notifications is not None:
            self._notifications.published(topics)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> PostgresSubscription:
        """Joins the group, which is made if need be."""
        self._limits.dead_letter_topics |= {*settings.dead_letter_topics}
        subscription = PostgresSubscription(
            self._database,
            self._limits,
            settings,
            listener,
            Membership(self._database, settings),
            self.published,
        )
        if self._notifications is not None:
            await self._notifications.start()
        await subscription.start()
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """Why the server cannot be used; None again when it answered."""
        return self._database.problem if self._notifications else "the transport is not open"

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """See `protoflow.transport.TopicReader`."""
        return read_topic(self._database, topic, start, end, follow=follow)

    async def lag(self, topic: str, group: str) -> Lag:
        """What the group has not finished."""
        return await topologies.lag(self._database, topic, group)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """See `MessageFinder`."""
        return await find_message(self._database, query)

    def transaction(self) -> AbstractAsyncContextManager[PostgresTransaction]:
        """Commits on leaving, rolls back on an exception."""
        return transaction(self._subscriptions, self._database, self._limits, self.published)

    def _wake(self, topics: Collection[str] | None) -> None:
        for subscription in self._subscriptions:
            if topics is None or subscription.topic in topics:
                subscription.wake()
