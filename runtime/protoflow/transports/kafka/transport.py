"""The transport: one producer, one admin client, one consumer for each group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from protoflow.contract.spec import Start
from protoflow.error_codes import NOT_OPEN, TOPOLOGY_MISSING
from protoflow.errors import ConnectionFailedError, PublishError, TopologyError
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
from protoflow.transports.kafka import broker_queries
from protoflow.transports.kafka.connection import prefer, reach
from protoflow.transports.kafka.consumers import group_joining_timeout
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.dead_letters import KafkaDeadLetterStore
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.lag import read_lag
from protoflow.transports.kafka.membership import Membership
from protoflow.transports.kafka.message_finder import KafkaMessageFinder
from protoflow.transports.kafka.options import KafkaOptions, client_arguments
from protoflow.transports.kafka.publisher import KafkaPublisher
from protoflow.transports.kafka.subscription import KafkaSubscription
from protoflow.transports.kafka.topic_reader import read_topic
from protoflow.transports.kafka.topics import SubscriptionTopics
from protoflow.transports.kafka.topology import ensure

_log = logging.getLogger("protoflow.transports.kafka")
#: Seconds before a temporary failure is retried.
_PAUSE = 0.25
#: Seconds for the last requests to a broker.
_CLOSING = 2.0


class KafkaTransport:
    """Implements `Transport` for Apache Kafka; `protoflow.transports.kafka.create` makes it."""

    def __init__(self, settings: TransportSettings, options: KafkaOptions) -> None:
        self._settings = settings
        self._options = options
        self._client = client_arguments(settings, options)
        self._context: KafkaContext | None = None
        self._publisher: KafkaPublisher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._subscriptions: set[KafkaSubscription] = set()
        self._memberships: list[Membership] = []
        self._planned: dict[str, list[SubscriptionSettings]] = {}
        self._problem: str | None = "not opened"
        self.dead_letters = KafkaDeadLetterStore(self._opened, self._opened_publisher)
        self.capabilities = Capabilities(
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
            ordered_replays=True,
            lag=True,
            reads_topics=True,
            keeps_settled=True,
            broadcast=True,
            max_message_bytes=options.max_request_size,
            proves_killers=True,
            sources=True,
            ordered_sources=True,
        )

    async def open(self) -> None:
        """Connects the producer and the client for queries."""
        seconds = self._settings.connect_timeout
        prefer(self._client, await reach(self._client, self._settings.url.safe, seconds))
        context = KafkaContext(
            settings=self._settings,
            options=self._options,
            client=self._client,
            admin=AIOKafkaAdminClient(**self._client),
            forget=self._subscriptions.discard,
        )
        publisher = KafkaPublisher(context)
        try:
            async with asyncio.timeout(seconds):
                await context.admin.start()
                limit = await broker_queries.broker_limit(context.admin)
                await publisher.open()
        except BaseException as error:
            await context.admin.close()
            if isinstance(error, KafkaError | TimeoutError | OSError):
                raise transport_error(error, "connecting", self._settings.url.safe) from error
            raise
        self._context, self._publisher = context, publisher
        if limit is not None:
            limit = min(limit, self._options.max_request_size)
            self.capabilities = replace(self.capabilities, max_message_bytes=limit)
        self._problem = None
        self._watching = asyncio.get_running_loop().create_task(self._watch(context))

    async def _watch(self, context: KafkaContext) -> None:
        """Checks regularly that the brokers answer, because aiokafka does not report this."""
        detail: str | None
        while True:
            await asyncio.sleep(self._options.health_interval)
            try:
                answered = await broker_queries.any_broker_answers(
                    context.admin, self._options.health_interval
                )
            except Exception:  # whatever the error is, the check is repeated
                _log.exception("the brokers did not answer")
                continue
            detail = None if answered else f"{self._settings.url.safe} does not answer"
            self._problem = detail
            for subscription in tuple(self._subscriptions):
                subscription.set_problem("broker", detail)

    async def close(self) -> None:
        """Flushes, leaves the groups, disconnects."""
        try:
            await self._close(self._settings.connect_timeout)
        except asyncio.CancelledError:
            await self._close(0.0)
            raise

    async def _close(self, seconds: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        stopping = [item.stop() for item in tuple(self._subscriptions)]
        for result in await asyncio.gather(*stopping, return_exceptions=True):
            if isinstance(result, Exception):  # whatever the error is, the rest is closed, too
                _log.error("a subscription did not stop normally", exc_info=result)
        if self._publisher is not None:
            await self._publisher.close(seconds)
            self._publisher = None
        if self._context is not None:
            with contextlib.suppress(Exception):  # it is abandoned in any case
                async with asyncio.timeout(_CLOSING):
                    await self._context.admin.close()
            self._context = None
        self._problem = "closed"

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies topics, including retry and dead-letter topics."""
        context = self._opened()
        self.dead_letters.sources.add(topology.subscriptions)
        self._plan(topology.subscriptions)
        passing: KafkaError | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while True:
                    try:
                        return await ensure(topology, mode, context)
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                        passing = error  # temporary: a node is not ready, or a leader moves
                    await asyncio.sleep(_PAUSE)
        except (KafkaError, TimeoutError) as error:
            problem = passing if passing is not None and isinstance(error, TimeoutError) else error
            raise transport_error(problem, "topics", self._settings.url.safe) from problem

    def _plan(self, subscriptions: Sequence[SubscriptionSettings]) -> None:
        """Records the planned subscriptions, because a group is joined once for all its topics."""
        for settings in subscriptions:
            if not settings.broadcast:
                planned = self._planned.setdefault(self._opened().group_id(settings), [])
                planned[:] = [item for item in planned if item.topic != settings.topic]
                planned.append(settings)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes; each result is None once all in-sync replicas have the message."""
        if self._publisher is None:
            future: asyncio.Future[Sequence[PublishError | None]]
            future = asyncio.get_running_loop().create_future()
            future.set_result(
                [PublishError("kafka: the transport is not open", code=NOT_OPEN)] * len(messages)
            )
            return future
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> KafkaSubscription:
        """Joins the group and waits until positions are known."""
        context = self._opened()
        try:
            membership, wanted = await self._membership_for(settings, context)
        except (KafkaError, TimeoutError, OSError) as error:
            raise transport_error(error, "subscribing", settings.name) from error
        consumption = Consumption(settings, wanted, listener, context, membership.member.wakeup)
        subscription = KafkaSubscription(consumption, membership, context, self._opened_publisher())
        self._subscriptions.add(subscription)
        try:
            async with asyncio.timeout(group_joining_timeout([settings], context)):
                await subscription.start()
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"kafka: subscription {settings.name}: the group could not be joined in time"
            ) from error
        except KafkaError as error:
            raise transport_error(error, "subscribing", settings.name) from error
        return subscription

    async def _membership_for(
        self, settings: SubscriptionSettings, context: KafkaContext
    ) -> tuple[Membership, SubscriptionTopics]:
        """Returns this process's member of the group, and the topics of the subscription."""
        await broker_queries.refresh_existing(context)
        wanted = SubscriptionTopics(settings, self._settings.ladder, context.existing)
        if missing := await broker_queries.missing_topics(context, list(wanted.all)):
            raise TopologyError(
                f"kafka: topics are missing: {', '.join(missing)}; create them or start with"
                " topology create",
                code=TOPOLOGY_MISSING,
            )
        self._memberships = [item for item in self._memberships if not item.left]
        group = context.group_id(settings)
        for membership in self._memberships:
            mine = membership.member.group == group and not settings.broadcast
            if mine and not membership.serves(wanted.main):
                return membership, wanted
        planned = [settings]
        if not settings.broadcast:
            others = self._planned.get(group, ())
            planned += [other for other in others if other.topic != settings.topic]
        every = dict.fromkeys(
            name
            for item in planned
            for name in SubscriptionTopics(item, self._settings.ladder, context.existing).all
            if name in context.existing or item is settings
        )
        publisher = self._opened_publisher()
        membership = Membership(planned, list(every), context, publisher.encoder)
        self._memberships.append(membership)
        return membership, wanted

    def health(self) -> str | None:
        """Returns None if a broker answers and confirms publishes."""
        if self._problem is None and self._publisher is not None:
            return self._publisher.problem
        return self._problem

    def _opened(self) -> KafkaContext:
        if self._context is None:
            raise ConnectionFailedError("kafka: the transport is not open", code=NOT_OPEN)
        return self._context

    def _opened_publisher(self) -> KafkaPublisher:
        if self._publisher is None:
            raise ConnectionFailedError("kafka: the transport is not open", code=NOT_OPEN)
        return self._publisher

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """See `protoflow.transport.TopicReader`."""
        return read_topic(self._opened(), topic, start, end, follow=follow)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """See `protoflow.transport.MessageFinder`."""
        context = self._opened()
        await broker_queries.refresh_existing(context)
        return await KafkaMessageFinder(context, query).find()

    async def lag(self, topic: str, group: str) -> Lag:
        """See `protoflow.transport.LagReader`."""
        try:
            return await read_lag(self._opened(), topic, group)
        except (KafkaError, TimeoutError) as error:
            raise transport_error(error, "lag", topic) from error
