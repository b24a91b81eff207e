"""The transport: one producer, one client for questions, one consumer a subscription."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from protoflow.errors import ConnectionFailedError, PublishError, TopologyError
from protoflow.message import Message
from protoflow.transport import (
    Capabilities,
    DeadLetter,
    Lag,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports.kafka import topology as topics
from protoflow.transports.kafka.connection import reach
from protoflow.transports.kafka.consumers import group_consumer, group_joining_timeout
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.dead_letters import KafkaDeadLetters
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.lag import read_lag
from protoflow.transports.kafka.options import KafkaOptions, client_arguments
from protoflow.transports.kafka.publisher import Publisher
from protoflow.transports.kafka.subscription import KafkaSubscription
from protoflow.transports.kafka.topics import SubscriptionTopics


class KafkaTransport:
    """Apache Kafka. Made by `protoflow.transports.kafka.create`."""

    def __init__(self, settings: TransportSettings, options: KafkaOptions) -> None:
        self._settings = settings
        self._options = options
        self._client = client_arguments(settings, options)
        self._context: Context | None = None
        self._publisher: Publisher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._subscriptions: set[KafkaSubscription] = set()
        self._problem: str | None = "not opened"
        self._capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            retains=True,
            broker_retry=True,
            retry_lateness=settings.ladder[0],
            atomic=options.idempotence,
            atomic_on_demand=True,
            dead_letters=True,
            lag=True,
            broadcast=True,
            max_message_bytes=options.max_request_size,
        )

    @property
    def capabilities(self) -> Capabilities:
        """See `protoflow.transport.Transport`."""
        return self._capabilities

    async def open(self) -> None:
        """Connects the producer and the client for questions."""
        seconds = self._settings.connect_timeout
        await reach(self._client, self._settings.url.safe, seconds)
        context = Context(
            settings=self._settings,
            options=self._options,
            client=self._client,
            admin=AIOKafkaAdminClient(**self._client),
            forget=self._subscriptions.discard,
        )
        publisher = Publisher(context)
        try:
            async with asyncio.timeout(seconds):
                await context.admin.start()
                limit = await topics.broker_limit(context.admin)
                await publisher.open()
        except BaseException as error:
            await context.admin.close()
            if isinstance(error, KafkaError | TimeoutError | OSError):
                raise transport_error(error, "connecting", self._settings.url.safe) from error
            raise
        self._context, self._publisher = context, publisher
        if limit is not None:
            limit = min(limit, self._options.max_request_size)
            self._capabilities = replace(self._capabilities, max_message_bytes=limit)
        self._problem = None
        self._watching = asyncio.get_running_loop().create_task(self._watch(context))

    async def _watch(self, context: Context) -> None:
        """Asks the broker from time to time whether it is there; aiokafka would not say."""
        detail: str | None
        while True:
            await asyncio.sleep(self._options.health_interval)
            try:
                async with asyncio.timeout(self._options.health_interval):
                    await context.admin.describe_topics([])  # of the brokers only
            except (KafkaError, TimeoutError, OSError) as error:
                self._problem = f"{self._settings.url.safe} does not answer"
                detail = f"{self._problem} ({type(error).__name__})"
            else:
                self._problem = detail = None
            for subscription in tuple(self._subscriptions):
                subscription.set_problem("broker", detail)

    async def close(self) -> None:
        """Flushes, leaves the groups, disconnects."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        for subscription in tuple(self._subscriptions):
            await subscription.stop()
        if self._publisher is not None:
            await self._publisher.close(self._settings.connect_timeout)
            self._publisher = None
        if self._context is not None:
            with contextlib.suppress(KafkaError):
                await self._context.admin.close()
            self._context = None
        self._problem = "closed"

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes or verifies topics, retry and dead-letter topics included."""
        try:
            await topics.ensure(topology, mode, self._opened())
        except (KafkaError, TimeoutError) as error:
            raise transport_error(error, "topics", self._settings.url.safe) from error

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes; each result is None once all in-sync replicas have the message."""
        if self._publisher is None:
            future: asyncio.Future[Sequence[PublishError | None]]
            future = asyncio.get_running_loop().create_future()
            future.set_result([PublishError("kafka: the transport is not open")] * len(messages))
            return future
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> KafkaSubscription:
        """Joins the group and waits until positions are known."""
        context = self._opened()
        wanted = SubscriptionTopics(settings, self._settings.ladder).all
        try:
            found = await topics.describe(context.admin, list(wanted))
        except (KafkaError, TimeoutError) as error:
            raise transport_error(error, "subscribing", settings.name) from error
        if missing := [topic for topic in wanted if topic not in found]:
            raise TopologyError(
                f"kafka: topics are missing: {', '.join(missing)}; create them or start with"
                " topology create"
            )
        subscription = KafkaSubscription(
            settings, listener, context, group_consumer(settings, context), self._opened_publisher()
        )
        self._subscriptions.add(subscription)
        try:
            async with asyncio.timeout(group_joining_timeout(settings, context)):
                await subscription.start()
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"kafka: subscription {settings.name}: the group could not be joined in time"
            ) from error
        except KafkaError as error:
            raise transport_error(error, "subscribing", settings.name) from error
        return subscription

    def health(self) -> str | None:
        """None when the broker answers."""
        return self._problem

    def _opened(self) -> Context:
        if self._context is None:
            raise ConnectionFailedError("kafka: the transport is not open")
        return self._context

    def _opened_publisher(self) -> Publisher:
        if self._publisher is None:
            raise ConnectionFailedError("kafka: the transport is not open")
        return self._publisher

    def _letters(self) -> KafkaDeadLetters:
        return KafkaDeadLetters(self._opened(), self._opened_publisher())

    async def count_dead_letters(self, topic: str) -> int:
        """See `protoflow.transport.DeadLetters`."""
        return await self._letters().count(topic)

    async def list_dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """See `protoflow.transport.DeadLetters`."""
        return await self._letters().list(topic, limit)

    async def show_dead_letter(self, topic: str, id: str) -> DeadLetter:
        """See `protoflow.transport.DeadLetters`."""
        return await self._letters().show(topic, id)

    async def replay_dead_letters(
        self, topic: str, ids: Collection[str] | None = None, *, to_origin: bool = False
    ) -> int:
        """See `protoflow.transport.DeadLetters`."""
        return await self._letters().replay(topic, ids, to_origin=to_origin)

    async def purge_dead_letters(self, topic: str, ids: Collection[str] | None = None) -> int:
        """See `protoflow.transport.DeadLetters`."""
        return await self._letters().purge(topic, ids)

    async def lag(self, topic: str, group: str) -> Lag:
        """See `protoflow.transport.LagReader`."""
        try:
            return await read_lag(self._opened(), topic, group)
        except (KafkaError, TimeoutError) as error:
            raise transport_error(error, "lag", topic) from error
