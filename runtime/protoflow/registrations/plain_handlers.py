"""Handlers without generated code: raw messages, JSON, protobuf and CloudEvents.

They use the same chain, retries and dead letters as generated handlers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message as ProtoMessage

from protoflow.codecs.json_codec import encode_json, json_decoder
from protoflow.context import Context
from protoflow.contract.spec import (
    DeliveryPolicy,
    MessageSpec,
    ProtoClass,
    PublicationSpec,
    RetryPolicy,
)
from protoflow.error_codes import HANDLER_FORM, HANDLER_RESULT, coded
from protoflow.errors import DecodeError, RegistrationError
from protoflow.events import CloudEvent, EventContext
from protoflow.message import Message
from protoflow.registrations.registration import Registration
from protoflow.registrations.shapes import shape_problem

#: A handler of raw messages; the messages it returns are published unchanged.
MessageHandler: TypeAlias = Callable[
    [Message, Context], Awaitable["Message | Sequence[Message] | None"]
]
#: A handler of JSON; its results are published as JSON.
JSONHandler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
#: A handler of protobuf messages; its results are published.
ProtoHandler: TypeAlias = Callable[[Any, Context], Awaitable["ProtoMessage | None"]]
#: A handler of CloudEvents.
EventHandler: TypeAlias = Callable[[EventContext], Awaitable[None]]

_NOTHING = DeliveryPolicy()


def message_registration(
    name: str, topic: str, handler: MessageHandler, *, group: str | None, delivery: DeliveryPolicy
) -> Registration:
    """Registers raw messages of every type, tombstones included. Raises RegistrationError."""
    _check(name, handler)

    async def call(message: Message, context: Context) -> None:
        result = await handler(message, context)
        if result is not None:
            await context.publish(*_messages(result))

    return Registration(
        name=name, topic=topic, group=group or name, call=call, delivery=delivery,
        tombstones=True, decode=lambda context: context.message,
    )  # fmt: skip


def json_registration(
    name: str,
    topic: str,
    handler: JSONHandler,
    *,
    type: Any,
    group: str | None,
    publish_topic: str | None,
    delivery: DeliveryPolicy,
    physical: Callable[[str], str],
) -> Registration:
    """Registers JSON payloads of any plain type. Raises RegistrationError."""
    _check(name, handler)
    read = json_decoder(type)

    def decode(context: Context) -> Any:
        if context.decoded is None:
            context.decoded = read(_payload(context))
        return context.decoded

    async def call(value: Any, context: Context) -> None:
        result = await handler(value, context)
        if result is None:
            return
        if publish_topic is None:
            problem = f"{name} returned a value; register it with publish_topic"
            raise TypeError(coded(problem, HANDLER_RESULT))
        kind = _type_name(result)
        event = CloudEvent(
            type=kind,
            source=f"/{name}",
            data=encode_json(result),
            id=context.output_id(context.reserve_position()),
            metadata=context.inherited(physical(publish_topic)),
        )
        context.keep(event.message(physical(publish_topic)))

    return Registration(
        name=name, topic=topic, group=group or name, call=call, delivery=delivery,
        decode=decode, output_topic=publish_topic or "",
    )  # fmt: skip


def proto_registration(
    name: str,
    topic: str,
    message_class: ProtoClass,
    handler: ProtoHandler,
    *,
    output_class: ProtoClass | None,
    publish_topic: str | None,
    group: str | None,
    delivery: DeliveryPolicy,
) -> Registration:
    """Registers protobuf messages without a generated module. Raises RegistrationError."""
    _check(name, handler)
    if (publish_topic is None) != (output_class is None):
        raise RegistrationError(
            f"{name}: set both publish_topic and output_class, or neither", code=HANDLER_FORM
        )
    publication = None
    if publish_topic is not None and output_class is not None:
        publication = PublicationSpec(topic=publish_topic, message=MessageSpec.of(output_class))
    return Registration(
        name=name,
        topic=topic,
        group=group or name,
        call=handler,
        types=(message_class.DESCRIPTOR.full_name,),
        message=MessageSpec.of(message_class),
        publication=publication,
        delivery=delivery,
    )


def event_registration(
    name: str,
    event_type: str,
    handler: EventHandler,
    *,
    topic: str | None,
    group: str | None,
    max_attempts: int | None,
    physical: Callable[[str], str],
) -> Registration:
    """Registers CloudEvents of one type. Raises RegistrationError."""
    _check(name, handler, arguments=1)

    async def call(event: CloudEvent, context: Context) -> None:
        await handler(EventContext(event, context, physical))

    delivery = _NOTHING
    if max_attempts is not None:
        delivery = DeliveryPolicy(retry=RetryPolicy(max_attempts=max_attempts))
    return Registration(
        name=name,
        topic=topic or event_type,
        group=group or name,
        call=call,
        types=(event_type,),
        delivery=delivery,
        tombstones=True,  # an event may have no data
        decode=lambda context: CloudEvent.of(context.message),
    )


def _check(name: str, handler: Any, arguments: int = 2) -> None:
    if (problem := shape_problem(name, handler, arguments=arguments)) is not None:
        raise RegistrationError(problem, code=HANDLER_FORM)


def _messages(result: Message | Iterable[Message]) -> Iterable[Message]:
    return (result,) if isinstance(result, Message) else result


def _payload(context: Context) -> bytes:
    payload = context.message.payload
    if payload is None:
        raise DecodeError("a tombstone has no payload")
    return payload


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
