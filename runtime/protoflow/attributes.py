"""The CloudEvents attributes of a received message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from protoflow import wire

if TYPE_CHECKING:
    from protoflow.message import Message


class CloudEventAttributes:
    """A read-only view of the attributes; an attribute that the sender left out is None. See
    `Context.cloudevent`."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def id(self) -> str:
        """The message id."""
        return self._message.id

    @property
    def type(self) -> str | None:
        """The event type, such as `shop.v1.OrderPlaced`."""
        return self._message.metadata.get(wire.CE_TYPE)

    @property
    def source(self) -> str | None:
        """The source of the event, a URI reference."""
        return self._message.metadata.get(wire.CE_SOURCE)

    @property
    def spec_version(self) -> str | None:
        """The CloudEvents version, `1.0`."""
        return self._message.metadata.get(wire.CE_SPECVERSION)

    @property
    def subject(self) -> str | None:
        """The subject of the event."""
        return self._message.metadata.get(wire.CE_SUBJECT)

    @property
    def time(self) -> datetime | None:
        """The time of the event; None if it is missing, or is no time with a zone."""
        return time_of(self._message.metadata.get(wire.CE_TIME))

    @property
    def data_schema(self) -> str | None:
        """The URI of the schema."""
        return self._message.metadata.get(wire.CE_DATASCHEMA)

    @property
    def data_content_type(self) -> str | None:
        """The media type of the payload."""
        return self._message.metadata.get(wire.CONTENT_TYPE)

    @property
    def extensions(self) -> Mapping[str, str]:
        """The extension attributes, by name without prefix."""
        return {
            name[len(wire.CE_PREFIX) :]: value
            for name, value in self._message.metadata.items()
            if is_extension(name)
        }

    def __repr__(self) -> str:
        # The text has no subject, because that is a value of the message.
        return f"CloudEventAttributes(id={self.id!r}, type={self.type!r}, source={self.source!r})"


def time_of(text: str | None) -> datetime | None:
    """Returns the time in an attribute, in UTC; None if it holds none."""
    try:
        time = datetime.fromisoformat(text.upper()) if text else None
        return time.astimezone(UTC) if time is not None and time.tzinfo is not None else None
    # some times in the years 1 and 9999 cannot be converted to UTC
    except (ValueError, OverflowError):
        return None


def is_extension(name: str) -> bool:
    """Whether a name of metadata is an extension attribute: `ce_`, lower case and digits."""
    attribute = name[len(wire.CE_PREFIX) :]
    return (
        name.startswith(wire.CE_PREFIX)
        and attribute not in wire.CORE_ATTRIBUTES
        and attribute.isascii()
        and attribute.isalnum()
        and attribute == attribute.lower()
    )
