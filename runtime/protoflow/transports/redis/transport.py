"""The Redis transport: a stream for each topic and shard, groups, and scripts in the server."""

from __future__ import annotations

import asyncio
import uuid
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
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.dead_letters import RedisDeadLetterStore
from protoflow.transports.redis.foreign_stream import ForeignStream
from protoflow.transports.redis.lag import read_lag
from protoflow.transports.redis.message_finder import find_message
from protoflow.transports.redis.options import RedisOptions
from protoflow.transports.redis.publisher import RedisPublisher
from protoflow.transports.redis.source_subscription import SourceSubscription
from protoflow.transports.redis.subscription import RedisSubscription
from protoflow.transports.redis.topic_reader import read_topic
from protoflow.transports.redis.topics import Topics

#: Seconds between checks of the server, and of topics without groups.
_CHECK: Final = 5.0


class RedisTransport:
    """Implements `Transport`, `KeepsDeadLetters`, `LagReader`, `TopicReader`, `MessageFinder`."""

    def __init__(self, settings: TransportSettings, options: RedisOptions) -> None:
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
            broadcast=True,
            max_message_bytes=options.max_message_bytes,
            proves_killers=True,
            sources=True,
        )
        self._connection = RedisConnection(settings, options)
        self._topics = Topics(self._connection)
        self._publisher = RedisPublisher(self._connection, self._topics)
        self.dead_letters = RedisDeadLetterStore(self._connection, self._topics, self._publisher)
        self._subscriptions: list[RedisSubscription] = []
        self._checks = Periodic(_CHECK, self._check)

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError or AuthenticationError."""
        await self._connection.open()
        self._checks.start()

    async def close(self) -> None:
        """Gives back unsettled messages, sends all submitted messages, and disconnects."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            await self._checks.stop()
            await self._publisher.close()
            await asyncio.gather(*(each.close() for each in subscriptions))
        finally:
            await self._connection.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates topics and groups, or reports those that are missing or differ."""
        self.dead_letters.sources.add(topology.subscriptions)
        await self._topics.ensure(topology, mode)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes messages, together with others that wait."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> RedisSubscription:
        """Joins the group; creates it if necessary."""
        if settings.source is not None:
            return await self._subscribe_to_source(settings, listener)
        group = f"{settings.group}~{uuid.uuid4().hex}" if settings.broadcast else settings.group
        await self._topics.join(settings, group=group)
        shards = await self._topics.shards(settings.topic)
        subscription = RedisSubscription(
            self._connection, self._topics, settings, listener, group, shards
        )
        self._subscriptions.append(subscription)
        return subscription

    async def _subscribe_to_source(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> RedisSubscription:
        """Joins a group of other programs, and the group's own stream of retries."""
        own = self._topics.own(settings)
        await self._topics.join(own, group=own.group)
        shards = await self._topics.shards(own.topic)
        foreign = ForeignStream(self._connection, settings, settings.topic, shards)
        await foreign.waiting()  # raises TopologyError if there is no group
        subscription = SourceSubscription(
            foreign, self._publisher, settings.topic,
            self._connection, self._topics, own, listener, own.group, shards,
        )  # fmt: skip
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """Returns the problem of the last call, or None."""
        return self._connection.problem

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """See `TopicReader`. Does not yield messages that every group has settled."""
        return read_topic(self._connection, self._topics, topic, start, end, follow=follow)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """See `MessageFinder`. Does not find messages that every group has settled."""
        return await find_message(self._connection, self._topics, query)

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the unfinished messages of the group."""
        return await read_lag(self._connection, self._topics, topic, group)

    async def _check(self) -> None:
        """Updates `health`, and limits the messages of topics without groups."""
        await self._connection.command("PING")
        await self._publisher.trim()
