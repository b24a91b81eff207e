"""Messages to AMQP's properties and back, by CloudEvents' AMQP binding.

The id, content type, type and correlation id stand in the properties too, where other
clients look. The key travels in the header `pf_key`, in base64 if it is not text, and a
tombstone is told from an empty payload by `pf_tombstone`.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pamqp.commands import Basic

from protoflow import wire
from protoflow.codecs.bindings import AMQP
from protoflow.message import Message
from protoflow.transports.rabbitmq import frames

KEY: Final = "pf_key"
KEY_ENCODING: Final = "pf_key_encoding"
TOMBSTONE: Final = "pf_tombstone"
DELIVERY_COUNT: Final = "x-delivery-count"
DEATHS: Final = "x-death"
_BROKERS_OWN = frozenset({DELIVERY_COUNT, "x-acquired-count"})
_FIRST_DEATH, _LAST_DEATH = "x-first-death-", "x-last-death-"
_PERSISTENT = b"\2"
_SHORT = 255  # bytes of a property
_TIMES = frozenset(f"{prefix}time" for prefix in (AMQP.prefix, *AMQP.accepts))
_NONE = Basic.Properties()


@dataclass(frozen=True, slots=True)
class Native:
    """What a received message has beyond text headers, kept for republication.

    Attributes:
        properties: its AMQP properties.
        headers: its headers whose values are not text.
    """

    properties: Basic.Properties
    headers: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever AMQP has


def encode(message: Message, now: float, owner: str) -> tuple[int, bytes]:
    """The flags and bytes of a message's properties.

    Args:
        message: the message.
        now: the time in seconds since the epoch.
        owner: the prefix of queues whose deaths are not told on: they are ours, and a
            message that was in a queue before would be taken for one in a cycle.

    Raises:
        ValueError: the name of a header is longer than AMQP allows.
    """
    headers: dict[str, Any] = dict(AMQP.headers(message.id, message.metadata))
    content_type = headers.pop(wire.CONTENT_TYPE, None)
    if message.key is not None:
        _write_key(headers, message.key)
    if message.payload is None:
        headers[TOMBSTONE] = "1"
    native: Native | None = message.headers
    if native is not None:
        headers = _overlay(headers, native.headers, owner)
    return _properties(message, content_type, headers, now)


def _properties(
    message: Message, content_type: str | None, headers: Mapping[str, Any], now: float
) -> tuple[int, bytes]:
    native = message.headers.properties if message.headers is not None else _NONE
    optional: tuple[tuple[int, bytes | None], ...] = (
        (frames.CONTENT_TYPE, _short(content_type)),
        (frames.CONTENT_ENCODING, _short(native.content_encoding)),
        (frames.HEADERS, frames.table(headers)),
        (frames.DELIVERY_MODE, _PERSISTENT),
        (frames.PRIORITY, None if native.priority is None else bytes((native.priority,))),
        (
            frames.CORRELATION_ID,
            _short(native.correlation_id or message.metadata.get(wire.CORRELATION_ID)),
        ),
        (frames.REPLY_TO, _short(native.reply_to)),
        (frames.MESSAGE_ID, _short(message.id)),
        (frames.TIMESTAMP, frames.timestamp(now)),
        (frames.TYPE, _short(message.metadata.get(wire.CE_TYPE))),
        (frames.APP_ID, _short(native.app_id)),
    )
    flags, parts = 0, []
    for flag, value in optional:
        if value is not None:
            flags |= flag
            parts.append(value)
    return flags, b"".join(parts)


def decode(
    topic: str, properties: Basic.Properties, body: bytes, owner: str
) -> tuple[Message, int]:
    """The message of a topic, and its size in bytes; `owner` as in `encode`."""
    native: dict[str, Any] = {}
    texts: list[tuple[str, str]] = []
    size = len(body)
    for name, value in (properties.headers or {}).items():
        if isinstance(value, str):
            texts.append((name, value))
            size += len(name) + len(value)
        else:
            native[name] = value
            if name in _TIMES and isinstance(value, int) and not isinstance(value, bool):
                value = datetime.fromtimestamp(value / 1000, UTC)  # as AMQP 1.0 counts
            if (text := _scalar(value)) is not None and name not in _BROKERS_OWN:
                texts.append((name, text))
    if properties.content_type is not None:
        texts.append((wire.CONTENT_TYPE, properties.content_type))
    id, metadata = AMQP.read(texts)
    if properties.correlation_id and wire.CORRELATION_ID not in metadata:
        metadata[wire.CORRELATION_ID] = properties.correlation_id
    if DEATHS in native:
        _forget_own_deaths(metadata, owner)
    key = _key(metadata.pop(KEY, None), metadata.pop(KEY_ENCODING, None))
    return (
        Message(
            id=id or properties.message_id or uuid.uuid4().hex,
            topic=topic,
            payload=None if metadata.pop(TOMBSTONE, None) else body,
            key=key,
            metadata=metadata,
            headers=Native(properties, native),
        ),
        size,
    )


def message_id(properties: Basic.Properties) -> str | None:
    """The id of a message that was sent by `encode`."""
    headers = properties.headers or {}
    id = headers.get(f"{AMQP.prefix}id") or headers.get(wire.MESSAGE_ID, properties.message_id)
    return id if isinstance(id, str) else None


def deliveries(properties: Basic.Properties) -> int:
    """How often a quorum queue has handed the message out, this time included.

    Until RabbitMQ 4.2 every return counts; from 4.3 on only those of failed or lost
    consumers do, so what was given back unstarted does not.
    """
    count = (properties.headers or {}).get(DELIVERY_COUNT, 0)
    return count + 1 if isinstance(count, int) else 1


@dataclass(frozen=True, slots=True)
class Death:
    """Where the broker dead-lettered a message, and the routing key that it came by."""

    queue: str
    routing_key: str


def last_death(message: Message) -> Death | None:
    """The last time that the broker dead-lettered a message, if it did."""
    native: Native | None = message.headers
    deaths = native.headers.get(DEATHS) if native is not None else None
    if not isinstance(deaths, list) or not deaths:
        return None
    return Death(str(deaths[0].get("queue", "")), str((deaths[0].get("routing-keys") or [""])[0]))


def sent_at(properties: Basic.Properties) -> float:
    """When the message was published, in seconds since the epoch; 0.0 if unknown."""
    return properties.timestamp.timestamp() if properties.timestamp else 0.0


def _overlay(headers: dict[str, Any], native: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The headers over the native ones, which stay where both say the same."""
    kept = {
        name: value
        for name, value in native.items()
        if name not in _BROKERS_OWN and headers.get(name, text := _scalar(value)) == text
    }
    if DEATHS in kept:
        kept = _without_own_deaths(kept, owner)
    return {**headers, **kept}


def _forget_own_deaths(metadata: dict[str, str], owner: str) -> None:
    for prefix in (_FIRST_DEATH, _LAST_DEATH):
        if metadata.get(f"{prefix}queue", "").startswith(owner):
            for part in ("queue", "exchange", "reason"):
                metadata.pop(prefix + part, None)


def _without_own_deaths(headers: dict[str, Any], owner: str) -> dict[str, Any]:
    deaths = headers[DEATHS]
    if isinstance(deaths, list):
        headers[DEATHS] = [death for death in deaths if not _died_in(death, owner)]
        if not headers[DEATHS]:
            del headers[DEATHS]
    return headers


def _died_in(death: object, owner: str) -> bool:
    return isinstance(death, dict) and str(death.get("queue", "")).startswith(owner)


def _short(text: str | None) -> bytes | None:
    """A property, if there is one and it fits; the header says the same at any length."""
    if not text or len(text) > _SHORT:
        return None
    data = text.encode()
    return bytes((len(data),)) + data if len(data) <= _SHORT else None


def _scalar(value: object) -> str | None:
    """A native value as text by the CloudEvents type system; None if it has no such form."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case _:
            return None


def _key(text: str | None, encoding: str | None) -> bytes | None:
    if text is None or encoding is None:
        return None if text is None else text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # foreign: not ours to fail on
        return text.encode()


def _write_key(headers: dict[str, Any], key: bytes) -> None:
    # All our headers are text: Watermill refuses messages with others.
    try:
        headers[KEY] = key.decode()
    except UnicodeDecodeError:
        headers[KEY] = base64.b64encode(key).decode()
        headers[KEY_ENCODING] = "base64"
