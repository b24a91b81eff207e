"""Messages as text with at most ten attributes, and back.

body                       the payload, if it is text; else its base64
content-transfer-encoding  `base64`, if the body is
cloudevents                JSON: the CloudEvents attributes, without `ce_`
content-type, correlation_id, traceparent, tracestate, baggage and the other names of `_KNOWN`
protoflow                  JSON: `key` in base64, `body` (`none`: a tombstone, `empty`), and
                           `metadata`: what has no attribute of its own
and the metadata of the user, as long as there are fewer than ten attributes
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from protoflow import wire
from protoflow.codecs.bindings import KAFKA
from protoflow.errors import PublishRefusedError
from protoflow.message import Message

#: Metadata that foreign programs read from attributes with the same names.
_KNOWN: Final = frozenset(
    {wire.CONTENT_TYPE, wire.CORRELATION_ID, wire.MESSAGE_ID, wire.WATERMILL_ID, wire.GO_SCHEMA,
     *wire.TRACE_CONTEXT}
)  # fmt: skip
#: Attributes whose names are metadata as they are.
_PLAIN: Final = frozenset({wire.CONTENT_TYPE, wire.CORRELATION_ID, *wire.TRACE_CONTEXT})
_ENCODING, _EVENT, _OWN = "content-transfer-encoding", "cloudevents", "protoflow"
_RESERVED: Final = frozenset({_ENCODING, _EVENT, _OWN})
_MOST_ATTRIBUTES: Final = 10
_MOST_KNOWN: Final = _MOST_ATTRIBUTES - 2  # without `cloudevents` and `protoflow`
#: The characters that SNS and SQS accept in bodies and attributes, without those that XML changes.
_TEXT: Final = re.compile("[\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
_NAME: Final = re.compile(r"(?!aws|amazon|pf_)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.IGNORECASE)
_LONGEST_NAME: Final = 256
_BASE64, _TOMBSTONE, _EMPTY = "base64", "none", "empty"
_STRING: Final = "String"
_dump: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_load: Final = json.JSONDecoder().decode


class Encoded(NamedTuple):
    """A message as it is sent, and its size as AWS counts it."""

    body: str
    attributes: dict[str, dict[str, str]]
    size: int


def encode(message: Message, limit: int) -> Encoded:
    """Returns a message as AWS takes it. Raises PublishRefusedError."""
    try:
        attributes: dict[str, dict[str, str]] = {}
        own: dict[str, Any] = {}
        body = _body(message.payload, attributes, own)
        if message.key is not None:
            own["key"] = base64.b64encode(message.key).decode()
        size = len(body) if body.isascii() else len(body.encode())
        size += _metadata(message, attributes, own) + len(_STRING) * len(attributes)
        if size > limit:
            raise ValueError(f"it has {size} bytes, {limit} are allowed")
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(f"message {message.id!r} cannot be stored: {error}") from error
    return Encoded(body, attributes, size)


def _attribute(text: str) -> dict[str, str]:
    return {"DataType": _STRING, "StringValue": text}


def _body(payload: bytes | None, attributes: dict[str, dict[str, str]], own: dict[str, Any]) -> str:
    if not payload:
        if payload is not None and not isinstance(payload, bytes | bytearray | memoryview):
            raise TypeError(f"{type(payload).__name__} is not bytes")
        own["body"] = kind = _TOMBSTONE if payload is None else _EMPTY
        return kind
    data = bytes(memoryview(payload))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if _TEXT.fullmatch(text):
        return text
    attributes[_ENCODING] = _attribute(_BASE64)
    return base64.b64encode(data).decode()


def _metadata(message: Message, attributes: dict[str, dict[str, str]], own: dict[str, Any]) -> int:
    """Adds the attributes of a message; returns the bytes of all attributes."""
    event: dict[str, str] = {}
    rest: dict[str, str] = {}
    size = len(_ENCODING + _BASE64) if attributes else 0
    for name, value in KAFKA.headers(message.id, message.metadata):
        if name[:3] == wire.CE_PREFIX:
            event[name[3:]] = value
        elif name in _KNOWN and len(attributes) < _MOST_KNOWN and _is_text(value):
            attributes[name] = _attribute(value)
            size += _bytes_of(name, value)
        else:
            rest[name] = value
    room = _MOST_ATTRIBUTES - 1 - bool(event)  # one is reserved for `protoflow`
    for name in [*rest]:
        if len(attributes) >= room:
            break
        if _is_attribute(name, rest[name]):
            attributes[name] = _attribute(rest[name])
            size += _bytes_of(name, rest.pop(name))
    if event:
        attributes[_EVENT] = _attribute(text := _dump(event))
        size += len(_EVENT) + len(text)
    if rest:
        own["metadata"] = rest
    if own:
        attributes[_OWN] = _attribute(text := _dump(own))
        size += len(_OWN) + len(text)
    return size


def _is_text(value: str) -> bool:
    return (value.isascii() and value.isprintable() and value != "") or (
        _TEXT.fullmatch(value) is not None
    )


def _bytes_of(name: str, value: str) -> int:
    return len(name) + (len(value) if value.isascii() else len(value.encode()))


def _is_attribute(name: str, value: str) -> bool:
    return (
        len(name) <= _LONGEST_NAME
        and _NAME.fullmatch(name) is not None
        and name not in _RESERVED
        and _is_text(value)
    )


class Decoded(NamedTuple):
    """A received message, the reason if a part of it could not be read, and its size."""

    message: Message
    unreadable: str | None
    size: int


def decode(topic: str, raw: Mapping[str, Any]) -> Decoded:
    """Returns a received message. A message without an id gets that of SQS."""
    metadata, foreign = dict[str, str](), list[tuple[str, str]]()
    own: Mapping[str, Any] = {}
    id: str | None = None
    encoding, problems, body = "", list[str](), str(raw.get("Body", ""))
    size = len(body)
    for name, attribute in raw.get("MessageAttributes", {}).items():
        value = attribute.get("StringValue")
        if value is None:  # a foreign one
            value = base64.b64encode(attribute.get("BinaryValue", b"")).decode()
        size += len(name) + len(value)
        if name == _OWN:
            own = _object(name, value, problems)
        elif name == _EVENT:
            event = _object(name, value, problems)
            id = _text(event.pop("id")) if "id" in event else None
            for each, text in event.items():
                metadata[wire.CE_PREFIX + each] = text if type(text) is str else _text(text)
        elif name == _ENCODING:
            encoding = value
        elif name in _PLAIN:
            metadata[name] = value
        else:
            foreign.append((name, value))
    key, rest = own.get("key"), own.get("metadata")
    if isinstance(rest, dict):
        for each, text in rest.items():
            metadata[each] = text if type(text) is str else _text(text)
    if foreign:
        found, read = KAFKA.read(foreign)
        id = found if found and (id is None or wire.WATERMILL_ID in read) else id
        metadata.update(read)
    message = Message(
        id=id or metadata.pop(wire.MESSAGE_ID, None) or raw.get("MessageId", ""),
        topic=topic,
        payload=_payload(body, encoding, own.get("body"), problems),
        key=_bytes("its key", key, problems) if isinstance(key, str) else None,
        metadata=metadata,
    )
    return Decoded(message, "; ".join(problems) or _envelope_of_sns(raw), size)


def _envelope_of_sns(raw: Mapping[str, Any]) -> str | None:
    """Returns a problem for an envelope of SNS, which would be a message without fields."""
    body = str(raw.get("Body", ""))
    if raw.get("MessageAttributes") or not body.startswith("{") or '"TopicArn"' not in body:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if found.get("Type") != "Notification" or "Message" not in found:
        return None
    return "it is in an envelope of SNS; set RawMessageDelivery of its subscription"


def _payload(body: str, encoding: str, kind: object, problems: list[str]) -> bytes | None:
    if kind == _TOMBSTONE:
        return None
    if kind == _EMPTY:
        return b""
    if encoding.lower() == _BASE64:
        return _bytes("its body", body, problems)
    return body.encode(errors="replace")


def _bytes(what: str, text: str, problems: list[str]) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        problems.append(f"{what} is not base64: {error}")
        return text.encode(errors="replace")


def _object(name: str, text: str, problems: list[str]) -> dict[str, Any]:
    try:
        found = _load(text)
    except (ValueError, RecursionError) as error:
        problems.append(f"attribute {name} is not JSON: {error!s:.100}")
        return {}
    if isinstance(found, dict):
        return found
    problems.append(f"attribute {name} is no JSON object")
    return {}


def _text(value: object) -> str:
    """The text of a CloudEvents attribute, whose JSON form may be a number or a boolean."""
    return value if isinstance(value, str) else _dump(value)
