"""A contract with settings, for the comparison with another version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from protoflow.config.settings import Config
from protoflow.contract.spec import MessageSpec, Ordering
from protoflow.dataclass_record import dataclass_record
from protoflow.registrations.subscription_plan import HandlerPlan


@dataclass_record
class Event:
    """A publication of a message.

    Attributes:
        source: the full name of the method or message that declares it.
        message: the full name of the message.
        type: its type.
        topic: the topic, with variables filled in.
    """

    source: str
    message: str
    type: str
    topic: str


class Contract:
    """A contract with settings.

    Args:
        handlers: the plans of its consuming methods, made without namespace.
        messages: the messages by full name.
        events: the publications, one for each source.
        places: `file:line` by definition: `shop.v1.OrderPlaced`, or more precisely
            `shop.v1.OrderPlaced topic` or `shop.v1.Orders.BillOrder retry.max_attempts`.
        config: the settings.
    """

    def __init__(
        self,
        handlers: tuple[HandlerPlan, ...],
        messages: Mapping[str, MessageSpec],
        events: tuple[Event, ...],
        places: Mapping[str, str],
        config: Config,
    ) -> None:
        self.handlers = {handler.registration.name: handler for handler in handlers}
        self.messages = messages
        self.events = {event.source: event for event in events}
        self.config = config
        self._places = places

    def place(self, name: str, aspect: str = "") -> str:
        """Returns the `file:line` of an aspect of a method or message, or of it; "" if unknown."""
        return self._places.get(f"{name} {aspect}") or self._places.get(name, "")

    @cached_property
    def subscriptions(self) -> Mapping[tuple[str, str], tuple[HandlerPlan, ...]]:
        """Returns the handlers by topic and group."""
        found: dict[tuple[str, str], tuple[HandlerPlan, ...]] = {}
        for handler in self.handlers.values():
            key = handler.topic, handler.group
            found[key] = (*found.get(key, ()), handler)
        return found

    @cached_property
    def published(self) -> frozenset[tuple[str, str]]:
        """Returns type and topic of all messages that its producers and services can publish."""
        events = {(event.type, event.topic) for event in self.events.values()}
        clients = {
            (handler.registration.message.type, handler.topic)
            for handler in self.handlers.values()
            if handler.registration.message is not None
        }
        return frozenset(events | clients)

    @cached_property
    def topics(self) -> frozenset[str]:
        """Returns all topics that it publishes to or consumes."""
        return frozenset(topic for _, topic in self.published)

    def consumers(self, type: str, topic: str) -> Iterator[HandlerPlan]:
        """Returns the consumers that get a type from a topic."""
        for handler in self.handlers.values():
            if handler.topic == topic and type in handler.registration.types:
                yield handler

    def is_ordered(self, message: str) -> bool:
        """Whether a subscription with a handler for the message is ordered."""
        return any(
            handler.policy.ordering is not Ordering.NONE
            for handler in self.handlers.values()
            if (spec := handler.registration.message) is not None
            and spec.message_class.DESCRIPTOR.full_name == message
        )
