"""The registrations of a service and their middleware chain, until it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protoflow.contract.spec import DeliveryPolicy
from protoflow.error_codes import TOO_LATE
from protoflow.errors import RegistrationError
from protoflow.registrations.plain_handlers import (
    event_registration,
    json_registration,
    message_registration,
    proto_registration,
)
from protoflow.registrations.registration import registrations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protoflow.contract.spec import ProtoClass
    from protoflow.handler import Handler, HandlerSync
    from protoflow.pipeline import Chain, Middleware
    from protoflow.registrations.plain_handlers import (
        EventHandler,
        JSONHandler,
        MessageHandler,
        ProtoHandler,
    )
    from protoflow.registrations.registration import Registration

_NOTHING = DeliveryPolicy()


class Registry:
    """Keeps the registrations of a service. `Service` describes the methods.

    Attributes:
        chain: the middlewares around every handler.
        registrations: the handlers.
        messages: types that are published but not handled.
        closed: whether the service has started.

    Args:
        chain: the initial middlewares.
        physical: fills the variables of a topic and adds the namespace.
    """

    def __init__(self, chain: Chain, physical: Callable[[str], str]) -> None:
        self.chain = chain
        self.registrations: list[Registration] = []
        self.messages: list[ProtoClass] = []
        self.closed = False
        self._physical = physical

    def register(self, *handlers: Handler | HandlerSync) -> None:
        """Registers instances of generated handler classes."""
        problems: list[str] = []
        made: list[Registration] = []
        for handler in handlers:
            try:
                made += registrations(handler)
            except RegistrationError as error:
                problems += error.problems
        self._add(*made, problems=problems)

    def register_message_handler(
        self, name: str, topic: str, handler: MessageHandler, *, group: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of raw messages."""
        self._add(message_registration(name, topic, handler, group=group, delivery=delivery))

    def register_json_handler(
        self, name: str, topic: str, handler: JSONHandler, *, type: Any = dict,
        group: str | None = None, publish_topic: str | None = None,
        delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of JSON."""
        self._add(
            json_registration(
                name, topic, handler, type=type, group=group, publish_topic=publish_topic,
                delivery=delivery, physical=self._physical,
            )
        )  # fmt: skip

    def register_proto_handler(
        self, name: str, topic: str, message_class: ProtoClass, handler: ProtoHandler, *,
        output_class: ProtoClass | None = None, publish_topic: str | None = None,
        group: str | None = None, delivery: DeliveryPolicy = _NOTHING,
    ) -> None:  # fmt: skip
        """Registers a handler of protobuf messages that have no generated handler class."""
        self._add(
            proto_registration(
                name, topic, message_class, handler, output_class=output_class,
                publish_topic=publish_topic, group=group, delivery=delivery,
            )
        )  # fmt: skip

    def register_cloudevents_handler(
        self, name: str, event_type: str, handler: EventHandler, *, topic: str | None = None,
        group: str | None = None, max_attempts: int | None = None,
    ) -> None:  # fmt: skip
        """Registers a handler of CloudEvents of one type."""
        self._add(
            event_registration(
                name, event_type, handler, topic=topic, group=group, max_attempts=max_attempts,
                physical=self._physical,
            )
        )  # fmt: skip

    def register_proto_message(self, message_class: ProtoClass) -> None:
        """Registers a type that is only published here."""
        self.messages.append(message_class)

    def register_middleware(
        self, name: str, middleware: Middleware, *, before: str | None = None,
        after: str | None = None,
    ) -> None:  # fmt: skip
        """Adds a middleware to the chain."""
        if self.closed:
            raise RegistrationError(
                f"middleware {name}: register before the service starts", code=TOO_LATE
            )
        self.chain = self.chain.add(name, middleware, before=before, after=after)

    def consume_events(self, event_type: str, handler: EventHandler) -> None:
        """Registers a handler of CloudEvents under its own name."""
        name = getattr(handler, "__qualname__", type(handler).__name__).replace("<locals>.", "")
        self.register_cloudevents_handler(_identifier(name), event_type, handler)

    def _add(self, *made: Registration, problems: Sequence[str] = ()) -> None:
        found = list(problems)
        names = {known.name for known in self.registrations}
        for registration in made:
            if self.closed:
                found.append(f"{registration.name}: register before the service starts")
            elif registration.name in names:
                found.append(f"{registration.name}: already registered; names are unique")
            names.add(registration.name)
        if found:
            raise RegistrationError(found)
        self.registrations += made


def _identifier(name: str) -> str:
    # The name becomes a consumer group, so it uses only characters of a group name.
    return "".join(
        character if character.isalnum() or character in "._-" else "-" for character in name
    )
