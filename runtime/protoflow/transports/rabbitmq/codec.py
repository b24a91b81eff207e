"""Converts messages to AMQP properties and back, by CloudEvents' AMQP binding.

The id, content type, type and correlation id are also in the properties, for other clients. The
header `pf_key` contains the key, in base64 if it is not text. `pf_tombstone` distinguishes a
tombstone from an empty payload.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from protoflow import wire
from protoflow.codecs.bindings import AMQP
from protoflow.message import Message
from protoflow.transports.rabbitmq import frames, reading
from protoflow.transports.rabbitmq.reading import Properties

KEY: Final = "pf_key"
KEY_ENCODING: Final = "pf_key_encoding"
TOMBSTONE: Final = "pf_tombstone"
DELIVERY_COUNT: Final = "x-delivery-count"
DEATHS: Final = "x-death"
_BROKERS_OWN = frozenset({DELIVERY_COUNT, "x-acquired-count"})
_FIRST_DEATH, _LAST_DEATH = "x-first-death-", "x-last-death-"
#: These headers make the broker send a copy to other queues.
_ORDERS = ("CC", "BCC")
#: The broker would search a consumer of this channel under this name, and end it.
_DIRECT_REPLY = "amq.rabbitmq.reply-to"
_PERSISTENT = b"\2"
_SHORT = 255  # the limit of a property in bytes
_TIMES = frozenset(f"{prefix}time" for prefix in (AMQP.prefix, *AMQP.accepts))
_MILLISECONDS = 1000
_NONE = Properties()


@dataclass(frozen=True, slots=True)
class Native:
    """The parts of a received message besides text headers, kept for republication.

    Attributes:
        properties: its AMQP properties.
        headers: its headers whose values are not text, as received.
        identified: whether it was sent with an id.
    """

    properties: Properties
    headers: Mapping[str, bytes] = field(default_factory=dict)
    identified: bool = True


def encode(message: Message, now: float, owner: str) -> tuple[int, bytes]:
    """Returns the flags and bytes of a message's properties.

    Args:
        message: the message.
        now: the time in seconds since the epoch.
        owner: the prefix of the runtime's own queues. Deaths in these queues are not passed on,
            because the broker would take a message that returns to such a queue for one in a cycle.

    Raises:
        ValueError: the name of a header is longer than AMQP allows, or a header is a command to the
            broker.
    """
    headers: dict[str, str | bytes] = dict(AMQP.headers(message.id, message.metadata))
    for order in _ORDERS:
        if order in headers:
            raise ValueError(
                f"its metadata has {order}, which orders rabbitmq to send copies elsewhere; "
                "give it another name"
            )
    content_type = headers.pop(wire.CONTENT_TYPE, None)
    if message.key is not None:
        _write_key(headers, message.key)
    if message.payload is None:
        headers[TOMBSTONE] = "1"
    native = message.headers if isinstance(message.headers, Native) else None
    if native is not None and native.headers:
        headers = _overlay(headers, native.headers, owner)
    properties = _NONE if native is None else native.properties
    return _properties(message, properties, content_type, headers, now)


def _properties(
    message: Message,
    native: Properties,
    content_type: str | bytes | None,
    headers: Mapping[str, str | bytes],
    now: float,
) -> tuple[int, bytes]:
    reply_to = native.reply_to if native.reply_to != _DIRECT_REPLY else None
    sent = frames.timestamp(now) if native.timestamp is None else frames.ticks(native.timestamp)
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
        (frames.REPLY_TO, _short(reply_to)),
        (frames.MESSAGE_ID, _short(message.id)),
        (frames.TIMESTAMP, sent),
        (frames.TYPE, _short(message.metadata.get(wire.CE_TYPE) or native.type)),
        (frames.APP_ID, _short(native.app_id)),
    )
    flags, parts = 0, []
    for flag, value in optional:
        if value is not None:
            flags |= flag
            parts.append(value)
    return flags, b"".join(parts)


def decode(topic: str, properties: Properties, body: bytes, owner: str) -> tuple[Message, int]:
    """Returns the message of a topic, and its size in bytes; `owner` is that of `encode`."""
    texts, natives = properties.texts, properties.natives
    size = len(body)
    for name, text in texts:
        size += len(name) + len(text)
    if natives:
        for name, native in natives.items():
            size += len(name) + len(native)
            if name not in _BROKERS_OWN and (known := _text(name, native)) is not None:
                texts.append((name, known))
        for name in _ORDERS:
            natives.pop(name, None)
    if properties.content_type is not None:
        texts.append((wire.CONTENT_TYPE, properties.content_type))
    id, metadata = AMQP.read(texts)
    texts.clear()  # they are kept in the metadata
    if properties.correlation_id and wire.CORRELATION_ID not in metadata:
        metadata[wire.CORRELATION_ID] = properties.correlation_id
    for name in _ORDERS:
        metadata.pop(name, None)
    if DEATHS in natives:
        _forget_own_deaths(metadata, owner)
    key = _key(metadata.pop(KEY, None), metadata.pop(KEY_ENCODING, None))
    id = id or properties.message_id
    return (
        Message(
            id=id or uuid.uuid4().hex,
            topic=topic,
            payload=None if metadata.pop(TOMBSTONE, None) else body,
            key=key,
            metadata=metadata,
            headers=Native(properties, natives, bool(id)),
        ),
        size,
    )


def message_id(properties: Properties) -> str | None:
    """Returns the id of a message that `encode` has written."""
    headers = dict(properties.texts)
    return headers.get(f"{AMQP.prefix}id") or headers.get(wire.MESSAGE_ID, properties.message_id)


def deliveries(properties: Properties, again: bool) -> int:
    """Returns how often a quorum queue has delivered the message, including this time.

    Until RabbitMQ 4.2, every return counts. From 4.3 on, only those of failed or lost consumers
    count, and not messages that were given back unstarted. The broker writes its count when it
    delivers `again`; before that, the publisher may have written the header.
    """
    native = properties.natives.get(DELIVERY_COUNT) if again else None
    count = reading.number(native) if native is not None else None
    return max(int(count), 0) + 1 if isinstance(count, int) else 1


@dataclass(frozen=True, slots=True)
class Death:
    """The broker's last dead-lettering of a message: the place, the routing key and the time."""

    queue: str
    routing_key: str
    time: float


def last_death(message: Message) -> Death | None:
    """Returns the last time when the broker dead-lettered a message; None if it never did."""
    native: Native | None = message.headers
    header = native.headers.get(DEATHS) if native is not None else None
    known = reading.deaths(header) if header is not None else []
    if not known:
        return None
    _, death = known[0]
    keys, time = death.get("routing-keys"), death.get("time")
    return Death(
        queue=str(death.get("queue", "")),
        routing_key=str(keys[0]) if isinstance(keys, list) and keys else "",
        time=time if isinstance(time, float) else 0.0,
    )


def sent_at(properties: Properties) -> float:
    """Returns the time of publishing, in seconds since the epoch; 0.0 if unknown."""
    known = properties.timestamp
    return (reading.moment(known) or 0.0) if known is not None else 0.0


def dead_lettered_at(message: Message) -> float:
    """Returns when the runtime or the broker dead-lettered a message; 0.0 if unknown."""
    try:
        seconds = float(message.metadata.get(wire.PF_DEAD_LETTERED_AT, ""))
    except ValueError:
        death = last_death(message)
        return death.time if death is not None else sent_at(message.headers.properties)
    return seconds if 0.0 <= seconds < 1e12 else 0.0


def _overlay(
    headers: dict[str, str | bytes], native: Mapping[str, bytes], owner: str
) -> dict[str, str | bytes]:
    """Returns the headers merged over the native ones; equal native values stay."""
    kept: dict[str, str | bytes] = {
        name: value
        for name, value in native.items()
        if name not in _BROKERS_OWN and headers.get(name, text := _text(name, value)) == text
    }
    if DEATHS in kept:
        del kept[DEATHS]
        if deaths := _deaths_of_others(native[DEATHS], owner):
            kept[DEATHS] = deaths
    return {**headers, **kept}


def _text(name: str, native: bytes) -> str | None:
    if name in _TIMES and native[:1] in b"lLIisu":  # AMQP 1.0 counts in this unit
        return reading.time_text(int(reading.number(native) or 0), _MILLISECONDS)
    return reading.scalar(native)


def _forget_own_deaths(metadata: dict[str, str], owner: str) -> None:
    for prefix in (_FIRST_DEATH, _LAST_DEATH):
        if metadata.get(f"{prefix}queue", "").startswith(owner):
            for part in ("queue", "exchange", "reason"):
                metadata.pop(prefix + part, None)


def _deaths_of_others(header: bytes, owner: str) -> bytes:
    kept = [
        raw
        for raw, death in reading.deaths(header)
        if not str(death.get("queue", "")).startswith(owner)
    ]
    return frames.array(kept) if kept else b""


def _short(text: str | bytes | None) -> bytes | None:
    """Returns a property if it exists and fits; the header holds the value at any length."""
    if not isinstance(text, str) or not text or len(text) > _SHORT:
        return None
    data = text.encode()
    return bytes((len(data),)) + data if len(data) <= _SHORT else None


def _key(text: str | None, encoding: str | None) -> bytes | None:
    if text is None or encoding is None:
        return None if text is None else text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # a foreign value must not cause an error here
        return text.encode()


def _write_key(headers: dict[str, str | bytes], key: bytes) -> None:
    # All headers of the runtime are text, because Watermill refuses messages with others.
    try:
        headers[KEY] = key.decode()
    except UnicodeDecodeError:
        headers[KEY] = base64.b64encode(key).decode()
        headers[KEY_ENCODING] = "base64"
