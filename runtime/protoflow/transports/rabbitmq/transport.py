"""The transport for RabbitMQ."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from protoflow.error_codes import SERVER_TOO_OLD, TOPOLOGY_MISSING
from protoflow.errors import ConnectionFailedError, PublishError, TopologyError, TransportError
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
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.dead_letters import RabbitMQDeadLetterStore
from protoflow.transports.rabbitmq.delayed_publishing import MAX_DELAY
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.planner import TopologyPlanner
from protoflow.transports.rabbitmq.probe import count
from protoflow.transports.rabbitmq.publisher import Publisher
from protoflow.transports.rabbitmq.subscription import RabbitMQSubscription
from protoflow.transports.rabbitmq.topology import Plan, TopologyManager

# these versions have time to live and at-least-once dead-lettering in quorum queues
_OLDEST = (3, 10)


class RabbitMQTransport:
    """RabbitMQ 3.10 or newer.

    Publishing and consuming use separate connections: a server that is short of memory blocks
    publishing connections, but acknowledgements must still arrive.
    """

    def __init__(self, settings: TransportSettings, options: RabbitMQOptions) -> None:
        self._settings = settings
        self._options = options
        self._names = Names(options.exchange, options.shards, settings.sources)
        self._out = Link(settings, options, "publisher")
        self._in = Link(settings, options, "consumer")
        self._publisher = Publisher(self._out, self._names, settings, options)
        self.dead_letters = RabbitMQDeadLetterStore(self._out, self._names, self._publisher)
        self._mode = TopologyMode.NONE
        self._version = (0, 0)
        self._joining = asyncio.Lock()
        self._joined = False
        self._subscriptions: list[RabbitMQSubscription] = []
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            delayed_publish=True,
            max_delay=MAX_DELAY,
            broker_retry=True,
            retry_lateness=min(settings.ladder, default=0.0) + 1.0,
            counts_deliveries=True,
            dead_letters=True,
            ordered_replays=True,
            leases=True,
            lag=True,
            broadcast=True,
            proves_killers=True,
            sources=True,
            max_message_bytes=options.max_message_bytes,
        )

    async def open(self) -> None:
        """Connects."""
        await self._out.open()
        try:
            self._version = (await self._out.connection()).version
            if self._version < _OLDEST:
                raise ConnectionFailedError(
                    f"rabbitmq at {self._settings.url.safe} has version "
                    f"{'.'.join(map(str, self._version))}; 3.10 or newer is needed",
                    code=SERVER_TOO_OLD,
                )
            await self._publisher.open()
        except FAILURES as error:
            await self.close()
            raise ConnectionFailedError(
                f"rabbitmq at {self._settings.url.safe}: {describe(error)}"
            ) from error
        except BaseException:
            await self.close()
            raise
        self.capabilities = dataclasses.replace(
            self.capabilities, max_message_bytes=self._publisher.limits.max_bytes
        )

    async def close(self) -> None:
        """Flushes and disconnects."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            for subscription in subscriptions:
                await subscription.stop()
            await self._publisher.close()
        finally:  # this runs even if the shutdown time is over
            await asyncio.gather(self._in.close(), self._out.close())

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies exchanges and queues. AMQP cannot read bindings, so they are created
        but not verified."""
        self._mode = self._publisher.mode = mode
        self.dead_letters.sources.add(topology.subscriptions)
        await self._declare(self._plan(topology), mode)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Joins the group."""
        async with self._joining:
            if not self._joined:
                await self._in.open()
                self._joined = True
        context = SubscriptionContext(
            settings=settings,
            listener=listener,
            transport=self._settings,
            options=self._options,
            names=self._names,
            own=self._names.of(settings.topic, settings.group),
            link=self._in,
            publish=self._publish,
        )
        subscription = RabbitMQSubscription(context, self._redeclare)
        await subscription.start()
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """Returns None if both connections are open and messages are confirmed in time."""
        problem = self._out.problem or (self._in.problem if self._joined else None)
        return problem or self._publisher.problem

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the messages in the group's queues and on its ladder, and those in flight in this
        process. AMQP does not show the messages in flight in other processes."""
        own = self._names.of(topic, group)
        queues = [*own.queues, *map(own.retry, self._settings.ladder)]
        counts = [await count(self._out, queue) for queue in queues]
        if counts[0] is None:
            raise TopologyError(
                f"group {group} of {topic} has no queue; start it once", code=TOPOLOGY_MISSING
            )
        here = sum(
            each.unsettled
            for each in self._subscriptions
            if (each.settings.topic, each.settings.group) == (topic, group)
        )
        return Lag(messages=sum(found or 0 for found in counts) + here)

    async def _publish(self, message: Message) -> PublishError | None:
        return (await self._publisher.submit((message,)))[0]

    def _plan(self, topology: Topology) -> Plan:
        return TopologyPlanner(self._names, self._settings.ladder, self._version).plan(topology)

    async def _declare(self, plan: Plan, mode: TopologyMode) -> None:
        try:
            await TopologyManager(self._out).ensure(plan, mode)
        except FAILURES as error:
            raise TransportError(f"topology of rabbitmq: {describe(error)}") from error

    async def _redeclare(self, settings: SubscriptionSettings) -> None:
        """Creates the missing parts of a subscription at the server."""
        if self._mode is not TopologyMode.CREATE:
            raise TopologyError(
                f"subscription {settings.name}: its queue is missing; make it by starting once "
                "with topology mode create",
                code=TOPOLOGY_MISSING,
            )
        await self._declare(self._plan(Topology(subscriptions=(settings,))), self._mode)
