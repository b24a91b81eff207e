"""The file transport: a log per topic, a journal per group, and locks between processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Final

from protoflow.contract.spec import Start
from protoflow.errors import PublishError
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
from protoflow.transports.file.context import FileContext, all_of
from protoflow.transports.file.dead_letters import FileDeadLetterStore
from protoflow.transports.file.message_finder import find_message, read_lag
from protoflow.transports.file.options import FileOptions
from protoflow.transports.file.publisher import FilePublisher
from protoflow.transports.file.subscription import FileSubscription
from protoflow.transports.file.topic_reader import read_topic
from protoflow.transports.file.topics import Topics

#: Seconds between two checks of the retention.
_RETENTION: Final = 60.0


class FileTransport:
    """Implements `Transport`, `KeepsDeadLetters`, `LagReader`, `TopicReader`, `MessageFinder`."""

    def __init__(self, settings: TransportSettings, options: FileOptions) -> None:
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            persists_attempts=True,
            counts_deliveries=True,
            dead_letters=True,
            ordered_replays=True,
            leases=True,
            lag=True,
            reads_topics=True,
            keeps_settled=True,
            broadcast=True,
            max_message_bytes=options.max_message_bytes,
            proves_killers=True,
        )
        self._context = FileContext(settings, options)
        self._topics = Topics(self._context)
        self._publisher = FilePublisher(self._context, self._topics, self._published)
        self.dead_letters = FileDeadLetterStore(self._context, self._topics, self._publisher)
        self._subscriptions: list[FileSubscription] = []
        self._periodic = (
            Periodic(options.fsync_interval, self._sync),
            Periodic(_RETENTION, self._publisher.apply_retention),
        )

    async def open(self) -> None:
        """Creates or checks the directory. Raises ConnectionFailedError."""
        await self._context.consume(self._topics.open)
        for each in self._periodic:
            each.start()

    async def close(self) -> None:
        """Writes submitted messages, and gives back unsettled ones."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(each.stop() for each in self._periodic))
        if self._context.closed:
            return
        try:
            await self._publisher.close()
            await asyncio.gather(*(each.close() for each in subscriptions))
            await self._context.consume(self.dead_letters.close)
        finally:
            self._context.shut_down()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates topics and groups, or reports the missing ones."""
        self.dead_letters.sources.add(topology.subscriptions)
        await self._context.consume(self._topics.ensure, topology, mode)
        if mode is TopologyMode.CREATE:
            await self._publisher.heal(sorted({each.topic for each in topology.subscriptions}))

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Appends messages, together with others that wait."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> FileSubscription:
        """Joins the group, which is created if necessary."""
        path = await self._context.consume(self._topics.join, settings)
        reader = await self._context.consume(self._topics.reader, settings.topic)
        subscription = FileSubscription(self._context, settings, listener, path, reader)
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """Returns why the directory cannot be written, or None."""
        problems = (self._publisher.problem, *(each.problem for each in self._periodic))
        if (problem := next(filter(None, problems), None)) is not None:
            return problem
        root = self._context.root
        return None if os.path.isdir(root) else f"{root} does not exist"

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """See `TopicReader`."""
        return read_topic(self._context, self._topics, topic, start, end, follow=follow)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """See `MessageFinder`."""
        now = self._context.settings.clock.now()
        return await self._context.consume(find_message, self._topics, query, now)

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the unsettled messages of the group."""
        now = self._context.settings.clock.now()
        return await self._context.consume(read_lag, self._topics, topic, group, now)

    def _published(self) -> None:
        for subscription in self._subscriptions:
            subscription.wake()

    async def _sync(self) -> None:
        """Writes to the disk what the options say, and checks a disk that had a problem."""
        await self._publisher.check()
        policy = self._context.options.fsync
        if policy == "never":
            return
        calls = [self._context.consume(each.sync) for each in self._subscriptions]
        if policy == "interval":
            calls.append(asyncio.ensure_future(self._publisher.sync()))
        await all_of(calls)
