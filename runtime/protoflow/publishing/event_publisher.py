"""Publishing without a generated producer: CloudEvents, data, protobuf, raw messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from protoflow import wire
from protoflow.contract.spec import MessageSpec, PublicationSpec
from protoflow.errors import InvalidMessageError
from protoflow.events import CloudEvent
from protoflow.output import Output

if TYPE_CHECKING:
    from datetime import timedelta

    from google.protobuf.message import Message as ProtoMessage

    from protoflow.contract.spec import ProtoClass
    from protoflow.message import Message
    from protoflow.output import AnyOutput
    from protoflow.publishing.publisher import MessagePublisher


class PublishOptions(TypedDict, total=False):
    """The options of `publish_data` and `publish_data_after`.

    Keys:
        subject: the CloudEvents subject.
        correlation_id: ties the event to a request.
        data_content_type: the media type of the data.
        data_schema: a URI.
        extensions: CloudEvents extension attributes.
        max_attempts: the highest number of runs that consumers should make. Only consumers that
            read `pf_max_attempts` (the Go runtime) use it; handlers of Protoflow follow their own
            contract.
        trace_id: 32 hexadecimal digits; with `parent_id` the W3C trace context.
        parent_id: 16 hexadecimal digits.
    """

    subject: str
    correlation_id: str
    data_content_type: str
    data_schema: str
    extensions: Mapping[str, str | int | bool]
    max_attempts: int
    trace_id: str
    parent_id: str


class EventPublisher:
    """Publishes CloudEvents, data, protobuf and raw messages immediately, with confirmation.

    Args:
        publisher: encodes and submits.
    """

    def __init__(self, publisher: MessagePublisher) -> None:
        self._publisher = publisher

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; returns their ids. See `protoflow.Publisher`."""
        return await self._publisher.outputs(publication, outputs)

    async def publish(self, *messages: Message) -> None:
        """Publishes raw messages.

        Raises:
            PublishError: the broker did not store a message.
            InvalidMessageError: metadata has names of broker commands, or values that are not text.
        """
        for message in messages:
            if (problem := wire.raw_problem(message.id, message.metadata)) is not None:
                raise InvalidMessageError(problem)
        await self._publisher.messages(messages)

    async def publish_proto(
        self, topic: str, message: ProtoMessage, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Publishes a protobuf message to a topic; returns its id. Raises PublishError."""
        output = Output(message, metadata=metadata, topic=topic)
        (id,) = await self._publisher.outputs(publication_of(type(message)), (output,))
        return id

    async def publish_event(self, event: CloudEvent, *, topic: str | None = None) -> str:
        """Publishes a CloudEvent to `topic`, by default its type; returns its id."""
        where = self._publisher.encode.physical(topic or event.type)
        await self._publisher.messages((event.message(where),))
        return event.id

    async def publish_event_after(
        self, event: CloudEvent, delay: timedelta, *, topic: str | None = None
    ) -> str:
        """Like `publish_event`, after a delay. Raises CapabilityError if that is not supported."""
        where = self._publisher.encode.physical(topic or event.type)
        message = replace(event.message(where), delay=delay.total_seconds())
        await self._publisher.messages((message,))
        return event.id

    async def publish_data(
        self, type: str, source: str, data: Any, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes data as a CloudEvent to the topic with the name of its type; returns its id."""
        return await self.publish_event(_event(type, source, data, options))

    async def publish_data_after(
        self,
        type: str,
        source: str,
        data: Any,
        delay: timedelta,
        **options: Unpack[PublishOptions],
    ) -> str:
        """Like `publish_data`, after a delay. Raises CapabilityError if that is not supported."""
        return await self.publish_event_after(_event(type, source, data, options), delay)


def _event(type: str, source: str, data: Any, options: PublishOptions) -> CloudEvent:
    metadata: dict[str, str] = {}
    if correlation_id := options.get("correlation_id"):
        metadata[wire.CORRELATION_ID] = correlation_id
    if max_attempts := options.get("max_attempts"):
        metadata[wire.PF_MAX_ATTEMPTS] = str(max_attempts)
    trace_id, parent_id = options.get("trace_id"), options.get("parent_id")
    if trace_id and parent_id:
        # https://www.w3.org/TR/trace-context/#traceparent-header, sampled
        metadata[wire.TRACEPARENT] = f"00-{trace_id}-{parent_id}-01"
    return CloudEvent(
        type=type,
        source=source,
        data=data,
        subject=options.get("subject"),
        data_content_type=options.get("data_content_type", wire.JSON),
        data_schema=options.get("data_schema"),
        extensions=options.get("extensions", {}),
        metadata=metadata,
    )


#: One publication for each class that was published without a contract.
_publications: dict[ProtoClass, PublicationSpec] = {}


def publication_of(message_class: ProtoClass) -> PublicationSpec:
    """Returns the contract of a message without one; binding it compiles its rules."""
    found = _publications.get(message_class)
    if found is None:
        # The topic comes with each output.
        found = PublicationSpec(topic="none", message=MessageSpec.of(message_class))
        _publications[message_class] = found
    return found
