"""CloudEvents for handlers without generated code: the event and its context."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from protoflow import wire
from protoflow.attributes import is_extension, time_of
from protoflow.codecs.cloudevents import is_json
from protoflow.context import Context
from protoflow.error_codes import ARGUMENT, ENVELOPE, coded
from protoflow.errors import DecodeError, InvalidMessageError
from protoflow.ids import new_id
from protoflow.message import Message

T = TypeVar("T")

_REQUIRED = ("type", "source", "specversion")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """A CloudEvent, version 1.0
    (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md).

    Attributes:
        type: the kind of event, such as `shop.order.placed`.
        source: the place of the event, a URI reference.
        data: bytes are published unchanged, other values as JSON.
        id: unique within the source.
        subject: the object that the event is about.
        time: the time of the event; by default now. A time without a time zone is local.
        data_content_type: the media type of the data.
        data_schema: a URI.
        extensions: extension attributes; names consist of `[a-z0-9]`, as the specification
            requires.
        metadata: string pairs outside the event, such as `correlation_id`.
    """

    type: str
    source: str
    data: Any = None  # Any: bytes, or a value that JSON can hold
    id: str = field(default_factory=new_id)
    subject: str | None = None
    time: datetime | None = None
    data_content_type: str = wire.JSON
    data_schema: str | None = None
    extensions: Mapping[str, str | int | bool] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [
            f"{name} is empty" for name in ("id", "type", "source") if not getattr(self, name)
        ]
        problems += [
            f"extension {name!r} is not of lower-case letters and digits"
            for name in self.extensions
            if not (name.isascii() and name.isalnum() and name == name.lower())
        ]
        problems += [
            f"extension {name!r} is an attribute of its own" for name in self.extensions
            if name in wire.CORE_ATTRIBUTES
        ]  # fmt: skip
        if problems:
            raise ValueError(coded("no CloudEvent: " + "; ".join(problems), ARGUMENT))

    def message(self, topic: str) -> Message:
        """Returns the event as a message in binary mode.

        Raises:
            TypeError: the data has no JSON form.
            InvalidMessageError: metadata has reserved names, or values that are not text.
        """
        if self.metadata:
            given = {n: v for n, v in self.metadata.items() if n != wire.PF_MAX_ATTEMPTS}
            if (problem := wire.metadata_problem(given)) is not None:
                raise InvalidMessageError(problem)
        moment = self.time or datetime.fromtimestamp(time.time(), UTC)
        metadata = {
            **self.metadata,
            wire.CE_SPECVERSION: "1.0",
            wire.CE_TYPE: self.type,
            wire.CE_SOURCE: self.source,
            wire.CE_TIME: moment.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            wire.CONTENT_TYPE: self.data_content_type,
        }
        if self.subject is not None:
            metadata[wire.CE_SUBJECT] = self.subject
        if self.data_schema is not None:
            metadata[wire.CE_DATASCHEMA] = self.data_schema
        for name, value in self.extensions.items():
            metadata[wire.CE_PREFIX + name] = _canonical(value)
        return Message(
            id=self.id,
            topic=topic,
            payload=self._payload(),
            metadata=metadata,
            deduplication_id=f"{self.id}:{topic}",
        )

    @classmethod
    def of(cls, message: Message) -> CloudEvent:
        """Returns the event in a message. Raises DecodeError if a required attribute is missing.
        An unreadable `time` is ignored, because `time` is optional."""
        metadata = message.metadata
        missing = [name for name in _REQUIRED if not metadata.get(wire.CE_PREFIX + name)]
        if not message.id:
            missing.append("id")
        if missing:
            raise DecodeError(
                f"the message is no CloudEvent: it lacks {', '.join(missing)}", code=ENVELOPE
            )
        return cls(
            id=message.id,
            type=metadata[wire.CE_TYPE],
            source=metadata[wire.CE_SOURCE],
            subject=metadata.get(wire.CE_SUBJECT),
            time=time_of(metadata.get(wire.CE_TIME)),
            data=message.payload,
            data_content_type=metadata.get(wire.CONTENT_TYPE, wire.JSON),
            data_schema=metadata.get(wire.CE_DATASCHEMA),
            extensions={name[3:]: value for name, value in metadata.items() if is_extension(name)},
            metadata={
                name: value
                for name, value in metadata.items()
                if not _forbidden(name) and not is_extension(name)
            },
        )

    def _payload(self) -> bytes | None:
        if self.data is None:
            return b""
        if isinstance(self.data, bytes):
            return self.data
        if isinstance(self.data, str) and not is_json(self.data_content_type):
            return self.data.encode()
        from protoflow.codecs.json_codec import encode_json

        return encode_json(self.data)


class EventContext:
    """The argument of a CloudEvents handler: the event, its data, and a publisher.

    Attributes:
        event: the event; `event.data` is the raw bytes.
        context: the context of the run.
    """

    __slots__ = ("_physical", "context", "event")

    def __init__(
        self, event: CloudEvent, context: Context, physical: Callable[[str], str] = str
    ) -> None:
        self.event = event
        self.context = context
        # Maps topics as written to topics with variables filled and with the namespace.
        self._physical = physical

    @property
    def raw_data(self) -> bytes:
        """The data as received."""
        return self.event.data or b""

    @property
    def logger(self) -> Any:
        """A logger that names handler, topic, message id and attempt in its records."""
        return self.context.logger

    def unmarshal_data(self, kind: type[T]) -> T:
        """The JSON data as this type; raises DecodeError, so the event is dead-lettered."""
        from protoflow.codecs.json_codec import json_decoder

        decoder = json_decoder(cast("Any", kind))
        decoded: T = decoder(self.raw_data)
        return decoded

    async def publish(
        self,
        type: str,
        source: str,
        data: Any,
        *,
        topic: str | None = None,
        delay: timedelta | None = None,
    ) -> str:
        """Publishes an event with the outcome of this run, under the same correlation id and trace;
        returns the id."""
        context = self.context
        where = self._physical(topic or type)
        position = context.reserve_position()
        event = CloudEvent(
            type=type,
            source=source,
            data=data,
            id=context.output_id(position),
            metadata=context.inherited(where),
        )
        message = event.message(where)
        message.delay = delay.total_seconds() if delay else 0.0
        context.keep(message)
        return event.id


def _canonical(value: str | int | bool) -> str:
    # The string encoding that the CloudEvents type system defines.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _forbidden(name: str) -> bool:
    # Only the sender may decide how often others should try.
    return wire.reserved(name) and name != wire.PF_MAX_ATTEMPTS
