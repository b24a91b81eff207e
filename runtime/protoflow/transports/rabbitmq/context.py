"""The shared state of one subscription's parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protoflow.contract.spec import Ordering
from protoflow.errors import PublishError, TransportError
from protoflow.message import Message
from protoflow.transport.interface import (
    SubscriptionListener,
    SubscriptionSettings,
    TransportSettings,
)
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.names import GroupNames, Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SubscriptionContext:
    """The settings of a subscription, and its connections to the broker.

    Attributes:
        settings: the subscription.
        listener: the scheduler.
        transport: the settings of the transport.
        options: the options of the transport.
        names: the names of all groups.
        own: the names of the subscription's group.
        link: the connection of consumers.
        publish: publishes one message, on the connection of publishers.
    """

    settings: SubscriptionSettings
    listener: SubscriptionListener
    transport: TransportSettings
    options: RabbitMQOptions
    names: Names
    own: GroupNames
    link: Link
    publish: Callable[[Message], Awaitable[PublishError | None]]

    @property
    def ordered(self) -> bool:
        """Whether order must be kept over the processes of the group."""
        return self.settings.ordering is not Ordering.NONE and not self.settings.broadcast

    async def put(self, message: Message) -> None:
        """Publishes a message to a queue of the group. Raises TransportError."""
        error = await self.publish(message)
        if error is not None:
            raise TransportError(f"queue {message.topic}: {error}") from error
