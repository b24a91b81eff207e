"""Registering handlers: the part of a service that says what it consumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protoflow.contract.spec import DeliveryPolicy
from protoflow.errors import RegistrationError
from protoflow.registrations.plain_handlers import (
    event_registration,
    json_registration,
    message_registration,
    proto_registration,
)
from protoflow.registrations.registration import registrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protoflow.contract.spec import ProtoClass
    from protoflow.handler import Handler, HandlerSync
    from protoflow.publishing.publisher import Publishing
    from protoflow.registrations.plain_handlers import (
        EventHandler,
        JSONHandler,
        MessageHandler,
        ProtoHandler,
    )
    from protoflow.registrations.registration import Registration

_NOTHING = DeliveryPolicy()


class Registering:
    """Keeps the registrations of a service until it starts."""

    _publishing: Publishing

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._messages: list[ProtoClass] = []
        self._closed = False

    def register(self, *handlers: Handler | HandlerSync) -> None:
        """Registers instances of generated handler classes.

        Raises:
            RegistrationError: with every mistake: not a generated handler, a method that cannot be
                called as its rpc says, registered twice, or too late.
        """
        problems: list[str] = []
        made: list[Registration] = []
        for handler in handlers:
            try:
                made += registrations(handler)
            except RegistrationError as error:
                problems += error.problems
        self._add(*made, problems=problems)

    def register_message_handler(
        self,
        name: str,
        topic: str,
        handler: MessageHandler,
        *,
        group: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:
        """Registers a handler of raw messages; what it returns is published as it is.

        Args:
            name: unique in the service; the group, too, unless given.
            topic: the consumed topic.
            handler: `async def handler(message, context)`.
            group: the consumer group.
            delivery: the policy.
        """
        self._add(message_registration(name, topic, handler, group=group, delivery=delivery))

    def register_json_handler(
        self,
        name: str,
        topic: str,
        handler: JSONHandler,
        *,
        type: Any = dict,
        group: str | None = None,
        publish_topic: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:
        """Registers a handler of JSON; what it returns goes to `publish_topic` as JSON.

        Args:
            name: unique in the service; the group, too, unless given.
            topic: the consumed topic.
            handler: `async def handler(value, context)`.
            type: what the JSON is read as: a dataclass, TypedDict, msgspec or pydantic type.
            group: the consumer group.
            publish_topic: where results go.
            delivery: the policy.
        """
        self._add(
            json_registration(
                name, topic, handler, type=type, group=group, publish_topic=publish_topic,
                delivery=delivery, physical=self._physical,
            )
        )  # fmt: skip

    def register_proto_handler(
        self,
        name: str,
        topic: str,
        message_class: ProtoClass,
        handler: ProtoHandler,
        *,
        output_class: ProtoClass | None = None,
        publish_topic: str | None = None,
        group: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:
        """Registers a handler of protobuf messages that have no generated handler class.

        Args:
            name: unique in the service; the group, too, unless given.
            topic: the consumed topic.
            message_class: the class of the input, from a `_pb2` module.
            handler: `async def handler(message, context)`.
            output_class: the class of what it returns.
            publish_topic: where that goes.
            group: the consumer group.
            delivery: the policy.
        """
        self._add(
            proto_registration(
                name, topic, message_class, handler, output_class=output_class,
                publish_topic=publish_topic, group=group, delivery=delivery,
            )
        )  # fmt: skip

    def register_cloudevents_handler(
        self,
        name: str,
        event_type: str,
        handler: EventHandler,
        *,
        topic: str | None = None,
        group: str | None = None,
        max_attempts: int | None = None,
    ) -> None:
        """Registers a handler of CloudEvents of one type.

        Args:
            name: unique in the service; the group, too, unless given.
            event_type: the CloudEvents type; the topic, too, unless given.
            handler: `async def handler(event)` with an `EventContext`.
            topic: the consumed topic.
            group: the consumer group.
            max_attempts: overrides the policy's.
        """
        self._add(
            event_registration(
                name,
                event_type,
                handler,
                topic=topic,
                group=group,
                max_attempts=max_attempts,
                physical=self._physical,
            )
        )

    def register_proto_message(self, message_class: ProtoClass) -> None:
        """Checks at start that messages of this type can be validated, and compiles their
        rules, for types that are published but not handled here."""
        self._messages.append(message_class)

    def consume_events(self, event_type: str, handler: EventHandler) -> None:
        """Registers a handler of CloudEvents under its own name; see
        `register_cloudevents_handler`."""
        name = getattr(handler, "__qualname__", type(handler).__name__).replace("<locals>.", "")
        self.register_cloudevents_handler(_identifier(name), event_type, handler)

    def _physical(self, topic: str) -> str:
        return self._publishing.encode.physical(topic)

    def _add(self, *made: Registration, problems: Sequence[str] = ()) -> None:
        found = list(problems)
        names = {known.name for known in self._registrations}
        for registration in made:
            if self._closed:
                found.append(f"{registration.name}: register before the service starts")
            elif registration.name in names:
                found.append(f"{registration.name}: already registered; names are unique")
            names.add(registration.name)
        if found:
            raise RegistrationError(found)
        self._registrations += made


def _identifier(name: str) -> str:
    # The name becomes a consumer group, so it keeps to a group's charset.
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
