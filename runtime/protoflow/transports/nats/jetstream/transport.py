"""JetStream: a stream per topic, a durable per group, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from protoflow.contract.spec import Ordering, Start
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import AuthenticationError, CapabilityError, PublishError, TopologyError
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.lag import Lag
from protoflow.transport.message_finder import FoundMessages, MessageQuery
from protoflow.transport.topic_reader import Point, TopicRecord
from protoflow.transports.nats.jetstream import foreign_consumer
from protoflow.transports.nats.jetstream.api import API, JSON, STREAM_NOT_FOUND, APIError
from protoflow.transports.nats.jetstream.buffers import Buffer, OrderedBuffer
from protoflow.transports.nats.jetstream.consumers import Consumers, Ephemeral
from protoflow.transports.nats.jetstream.dead_letters import JetStreamDeadLetterStore
from protoflow.transports.nats.jetstream.message_finder import JetStreamMessageFinder
from protoflow.transports.nats.jetstream.publisher import JetStreamPublisher
from protoflow.transports.nats.jetstream.puller import Puller
from protoflow.transports.nats.jetstream.start_marks import StartMarks
from protoflow.transports.nats.jetstream.subscription import JetStreamSubscription
from protoflow.transports.nats.jetstream.topic_reader import read_topic
from protoflow.transports.nats.jetstream.topology import TopologyManager
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.options import JetStreamOptions
from protoflow.transports.nats.wire.connection import NatsConnection

_RETRY = "retry"
_SCHEDULES_SINCE = (2, 12)
_PINS_SINCE = (2, 11)


class JetStreamTransport:
    """Implements `Transport`, `KeepsDeadLetters` and `LagReader`.

    Attributes:
        capabilities: after `open`, those of the server: delayed publish needs NATS 2.12, ordered
            replays need 2.11.
    """

    def __init__(self, settings: TransportSettings, options: JetStreamOptions) -> None:
        self._settings = settings
        self._options = options
        self._connection = NatsConnection(settings, options)
        self._names = JetStreamNames(options.prefix, options.shards, settings.sources)
        self._api = API(self._connection, options.domain)
        self._topology = TopologyManager(self._api, self._names, options)
        self._publisher = JetStreamPublisher(
            self._connection,
            self._names,
            self._topology,
            require_subscriber=settings.require_subscriber,
        )
        self.dead_letters = JetStreamDeadLetterStore(self._api, self._names, self._publisher)
        self._mode = TopologyMode.CREATE
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            retains=True,
            broker_retry=True,
            counts_deliveries=True,
            dead_letters=True,
            ordered_replays=True,
            leases=True,
            lag=True,
            reads_topics=True,
            keeps_settled=True,
            broadcast=True,
            proves_killers=True,
            sources=True,
        )

    async def open(self) -> None:
        """As `Transport.open`; a server without JetStream is an error."""
        await self._connection.open()
        try:
            client = self._connection.client
            version = client.connected_server_version
            release = (version.major, version.minor)
            self._topology.schedules = release >= _SCHEDULES_SINCE
            self._topology.pins = release >= _PINS_SINCE
            await self._api.call("INFO")
            await self._connection.join(self._publisher)
        except BaseException:
            await self._connection.close()
            raise
        self.capabilities = replace(
            self.capabilities,
            delayed_publish=self._topology.schedules,
            ordered_replays=self._topology.pins,
            max_message_bytes=client.max_payload,
        )

    async def close(self) -> None:
        """As `Transport.close`."""
        await self._connection.close()
        await self._publisher.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """As `Transport.ensure`."""
        self._mode = mode
        self.dead_letters.sources.add(topology.subscriptions)
        self._publisher.held.creates = mode is TopologyMode.CREATE
        if mode is TopologyMode.NONE:
            return
        await self._topology.ensure(topology, mode)
        self._publisher.held.known.update(topology.topics)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """As `Transport.submit`."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """As `Transport.subscribe`."""
        if settings.atomic:
            raise CapabilityError(f"{settings.name}: JetStream has no transactions")
        if settings.broadcast:
            return await self._subscribe_alone(settings, listener)
        problems = await self._topology.ensure_durables(settings, self._mode)
        if problems and self._mode is not TopologyMode.NONE:
            raise TopologyError("\n".join(problems))
        retries = self._names.retry_topic(settings.topic, settings.group)
        # An ordered lane waits without giving messages back: a redelivered message would be out of
        # order.
        schedules = self._topology.schedules
        deferred = schedules and settings.ordering is Ordering.NONE
        durables = self._topology.durables(settings)
        if settings.source is not None:
            deferred = True  # the consumer of another program keeps no wait
            durables[0] = await self._foreign(*durables[0])
            lease = foreign_consumer.lease(durables[0][1], settings.lease)
            settings = replace(settings, lease=lease)
        subscription = JetStreamSubscription(
            Consumers(self._api, settings, durables, self._settings.on_lost_position),
            listener,
            retry_topic=retries if deferred else None,
            schedules=schedules,
            marks=StartMarks(self._api, self._names, settings),
        )
        for shard, (stream, config) in enumerate(durables):
            last = shard == len(durables) - 1
            self._add_puller(subscription, stream, config, _RETRY if last else shard)
        return await self._join(subscription)

    async def _foreign(self, stream: str, durable: JSON) -> tuple[str, JSON]:
        """Returns the settings of a consumer of another program. Raises TopologyError."""
        name = durable["durable_name"]
        if (found := await self._api.consumer(stream, name)) is None:
            raise TopologyError(f"consumer {name} of stream {stream} is missing")
        foreign_consumer.warn_of_limit(stream, name, found["config"])
        return stream, {**found["config"], **durable}

    async def _join(self, subscription: JetStreamSubscription) -> JetStreamSubscription:
        await self._connection.join(subscription)
        await self._connection.flush()
        if subject := subscription.missing_right:
            await subscription.stop()
            raise AuthenticationError(
                f"{subscription.settings.name}: not authorised to use {subject}; give this user"
                " the right to publish and to subscribe as docs/security.md says"
            )
        return subscription

    def health(self) -> str | None:
        """As `Transport.health`."""
        return self._connection.problem

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """As `TopicReader.read_topic`."""
        return read_topic(self._api, self._names, topic, start, end, follow=follow)

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """As `MessageFinder.find_message`."""
        return await JetStreamMessageFinder(self._api, self._names, query).find()

    async def lag(self, topic: str, group: str) -> Lag:
        """See `LagReader.lag`; messages that wait for a retry count, too."""
        names, waiting = self._names, 0
        consumers = [(names.stream(topic), durable) for durable in names.consumers(topic, group)]
        consumers.append((names.group_stream(group), names.topic_token(topic)))
        for stream, durable in consumers:
            info = await self._api.consumer(stream, durable)
            if info is not None:
                waiting += info["num_pending"] + info["num_ack_pending"]
        schedules = names.schedules(names.retry_topic(topic, group))
        info = await self._api.stream(names.group_stream(group), schedules)
        if info is not None:
            waiting += sum((info["state"].get("subjects") or {}).values())
        return Lag(messages=waiting)

    def _add_puller(
        self, subscription: JetStreamSubscription, stream: str, config: JSON, shard: str | int
    ) -> None:
        settings, options = subscription.settings, self._options
        max_payload = self._connection.client.max_payload
        # Replays and retries of an ordered group have lost their place in the order anyway.
        ordered = settings.ordering is not Ordering.NONE and shard != _RETRY
        pins = self._topology.pins
        replays = self._names.subjects(self._names.replay_topic(settings.topic, settings.group))
        limits = foreign_consumer.RequestLimits(
            batch=options.fetch_batch,
            # A message that does not fit would never be delivered.
            max_bytes=max(settings.max_in_flight_bytes // 2, 2 * max_payload),
            expires=options.fetch_expires,
        ).within(config)
        puller = Puller(
            connection=self._connection,
            owner=subscription,
            buffer=OrderedBuffer(settings.ordering) if ordered else Buffer(),
            api=self._api.prefix,
            stream=stream,
            consumer=config["durable_name"],
            shard=shard,
            batch=limits.batch,
            max_bytes=limits.max_bytes,
            expires=limits.expires,
            window=(options.ordered_window if pins else 1) if ordered else 0,
            pin_timeout=settings.lease if ordered and pins else 0.0,
            own=shard == _RETRY,
            replays=replays[shard].encode() if isinstance(shard, int) else b"",
            lease=settings.lease,
        )
        subscription.pullers.append(puller)

    async def _subscribe_alone(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Returns an ephemeral consumer of this process, which starts anew after a long outage."""
        stream = self._names.stream(settings.topic)
        consumers = Ephemeral(self._api, settings, self._topology.ephemeral(settings), stream)
        try:
            name = await consumers.create()
        except APIError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise TopologyError(
                    f"{settings.name}: stream {stream} is missing", code=TOPOLOGY_MISSING
                ) from error
            raise
        subscription = JetStreamSubscription(consumers, listener)
        self._add_puller(subscription, stream, {"durable_name": name}, 0)
        return await self._join(subscription)
