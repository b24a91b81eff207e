"""The SQLite transport."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from protoflow.contract.spec import Start
from protoflow.error_codes import SERVER_TOO_OLD, TOPOLOGY_MISSING
from protoflow.errors import ConnectionFailedError, ProtoflowError, PublishError, TopologyError
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.lag import Lag
from protoflow.transport.message_finder import FoundMessages, MessageQuery
from protoflow.transport.topic_reader import Point, TopicRecord
from protoflow.transports.sqlite import topics
from protoflow.transports.sqlite.database import Database
from protoflow.transports.sqlite.dead_letters import SqliteDeadLetterStore
from protoflow.transports.sqlite.message_finder import find_message
from protoflow.transports.sqlite.options import SqliteOptions
from protoflow.transports.sqlite.publishing import Publication
from protoflow.transports.sqlite.session_lease import SessionLease
from protoflow.transports.sqlite.subscription import SqliteSubscription
from protoflow.transports.sqlite.topic_reader import read_topic
from protoflow.transports.sqlite.transaction import SqliteTransaction, transaction

_OLDEST_SQLITE: Final = (3, 35, 0)
_MAINTENANCE: Final = 30.0


class SqliteTransport(Database):
    """Topics and groups in a file that several processes may share."""

    def __init__(self, settings: TransportSettings, path: str, options: SqliteOptions) -> None:
        super().__init__(settings, path, options)
        self.dead_letters = SqliteDeadLetterStore(self)
        self._subscriptions: list[SqliteSubscription] = []
        self._maintenance: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = False
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
            ordered_replays=True,
            leases=True,
            lag=True,
            reads_topics=True,
            broadcast=True,
            max_message_bytes=options.max_message_bytes,
            proves_killers=True,
        )

    async def open(self) -> None:
        """Opens the file; creates or migrates its tables."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConnectionFailedError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.35 or newer is needed",
                code=SERVER_TOO_OLD,
            )
        await self.connect_file()
        self._opened = True
        self._maintain()

    async def close(self) -> None:
        """Gives back unsettled messages, writes submitted ones, and disconnects."""
        if not self._opened:
            return
        self._opened = False
        if self._maintenance is not None:
            self._maintenance.cancel()
        self.leave()
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            await asyncio.gather(*(each.close() for each in subscriptions))
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self.worker.stop()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates topics and groups, or reports the missing ones."""
        self.dead_letters.sources.add(topology.subscriptions)
        if mode is TopologyMode.CREATE:
            await self.worker.call(lambda connection: topics.make(connection, topology))
        elif mode is TopologyMode.VERIFY:
            lacking = await self.worker.call(
                lambda connection: topics.missing(connection, topology), writes=False
            )
            if lacking:
                raise TopologyError(
                    f"missing in {os.path.basename(self.path)}: {', '.join(lacking)}; start once"
                    " with topology mode create",
                    code=TOPOLOGY_MISSING,
                )

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes together with other writes."""
        job = self.worker.pending(Publication)
        if not isinstance(job, Publication) or job.full:
            job = Publication(self.recent, self.published, self.require_subscriber)
            self.worker.add(job, Publication)
        return job.submit(messages, self.clock.now(), self.limits)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> SqliteSubscription:
        """Joins the group, which is created if necessary."""
        session_lease = SessionLease(self, settings)
        await session_lease.begin()
        subscription = SqliteSubscription(self, settings, listener, session_lease)
        self._subscriptions.append(subscription)
        self.members.append(subscription)
        self.recent.topics |= {settings.topic}
        self.limits.dead_letter_topics |= {*settings.dead_letter_topics}
        return subscription

    def health(self) -> str | None:
        """Returns why the file cannot be written or read; None after the next successful write."""
        return self.worker.problem if self._opened else "the transport is not open"

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """See `TopicReader`; messages that every group has settled are deleted."""
        return read_topic(self.worker, topic, start, end, follow=follow)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """See `MessageFinder`; messages that every group has settled are deleted."""
        return await self.worker.call(
            lambda connection: find_message(connection, query), writes=False
        )

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the unfinished messages of the group."""
        messages, oldest = await self.worker.call(
            lambda connection: topics.lag(connection, topic, group), writes=False
        )
        age = None if oldest is None else max(0.0, self.clock.now() - oldest)
        return Lag(messages=messages, seconds=age)

    def transaction(self) -> AbstractAsyncContextManager[SqliteTransaction]:
        """Commits at the end of the block, or rolls back on an exception."""
        return transaction(self._subscriptions, self)

    def _maintain(self) -> None:
        task = self._loop.create_task(self._clean())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._maintenance = self._loop.call_later(_MAINTENANCE, self._maintain)

    async def _clean(self) -> None:
        before, most = self.clock.now() - self.options.retention, self.options.retained_messages
        # `health` reports the error; the attempt is repeated later
        with contextlib.suppress(ProtoflowError):
            await self.worker.call(
                lambda connection: topics.drop_retained(connection, before, most)
            )
