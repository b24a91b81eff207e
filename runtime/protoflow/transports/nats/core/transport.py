"""Core NATS: publish and subscribe without a store, at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from protoflow.contract.spec import Ordering
from protoflow.errors import AuthenticationError, CapabilityError, PublishError
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
from protoflow.transports.nats.core.publisher import CorePublisher
from protoflow.transports.nats.core.subscription import CoreSubscription
from protoflow.transports.nats.names import tokens
from protoflow.transports.nats.options import CoreOptions
from protoflow.transports.nats.wire.connection import NatsConnection


class CoreTransport:
    """Implements `Transport`: a consumer group is a queue group, and nothing is stored.

    So delivery is at most once, without retries by the broker, dead letters, or order over
    processes.
    """

    def __init__(self, settings: TransportSettings, options: CoreOptions) -> None:
        self._options = options
        self._connection = NatsConnection(settings, options)
        self._prefix = f"{options.prefix}." if options.prefix else ""
        self._publisher = CorePublisher(
            self._connection, self._prefix, mandatory=settings.require_subscriber
        )
        self.capabilities = Capabilities(at_least_once=False, processes=True, broadcast=True)

    async def open(self) -> None:
        """As `Transport.open`."""
        await self._connection.open()
        try:
            await self._connection.join(self._publisher)
            limit = self._connection.client.max_payload
        except BaseException:
            await self._connection.close()
            raise
        self.capabilities = replace(self.capabilities, max_message_bytes=limit)

    async def close(self) -> None:
        """As `Transport.close`."""
        await self._connection.close()
        self._publisher.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Does nothing, because subjects exist when they are used."""

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`; the result only means that the server has received the
        message."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """As `Transport.subscribe`."""
        if settings.ordering is not Ordering.NONE or settings.atomic:
            raise CapabilityError(
                f"{settings.name}: core NATS keeps no order over processes and has no"
                " transactions; use jetstream:// for ordering"
            )
        subscription = CoreSubscription(
            self._connection,
            settings,
            listener,
            self._prefix + tokens(settings.topic),
            self._options,
        )
        await self._connection.join(subscription)
        # Waits for the confirmation, so that later messages arrive.
        await self._connection.flush()
        if problem := subscription.missing_right:
            await subscription.stop()
            raise AuthenticationError(f"{settings.name}: {problem}; give this user the right")
        return subscription

    def health(self) -> str | None:
        """As `Transport.health`."""
        return self._connection.problem
