"""Messages to NATS headers and back: the CloudEvents binding, and what it lacks.

NATS headers are text, without line breaks and blanks at their ends. So that metadata of
any text survive, values that headers would change are percent-encoded, and their names
listed in one header more. Key and tombstone have headers of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from protoflow import wire
from protoflow.bindings import NATS
from protoflow.message import Message

MESSAGE_ID: Final = "Nats-Msg-Id"
_KEY: Final = "ce-partitionkey"  # CloudEvents' extension for keys
_TOMBSTONE: Final = "pf_tombstone"
_ENCODED: Final = "pf_encoded"
_OURS: Final = frozenset({_TOMBSTONE, _ENCODED})
_STRUCTURED: Final = "Content-Type"  # the binding's name for it in structured mode

_CHANGED = re.compile(r"[\r\n\0]|^\s|\s$")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def encode(message: Message) -> dict[str, str]:
    """The headers of a message. Raises ValueError for a name that cannot be one."""
    metadata = message.metadata
    headers = dict(NATS.headers(message.id, metadata))
    if message.headers:
        headers = {**message.headers, **headers}
    content_type = metadata.get(wire.CONTENT_TYPE)
    if content_type is not None and content_type.startswith(wire.CLOUDEVENTS):
        headers[_STRUCTURED] = headers.pop(NATS.content_type)
    if message.key:
        headers[_KEY] = quote_from_bytes(message.key)
    if message.payload is None:
        headers[_TOMBSTONE] = "1"
    encoded = []
    for name, value in headers.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"metadata {name!r} cannot be the name of a NATS header")
        if _CHANGED.search(value) is not None:
            headers[name] = quote(value)
            encoded.append(name)
    if encoded:
        headers[_ENCODED] = ",".join(encoded)
    return headers


def decode(
    topic: str, payload: bytes, headers: Mapping[str, str] | None, fallback_id: str
) -> Message:
    """The message behind a payload and its headers; an id where they name none."""
    if not headers:
        return Message(id=fallback_id, topic=topic, payload=payload)
    if _ENCODED in headers:
        names = headers[_ENCODED].split(",")
        headers = {k: unquote(v) if k in names else v for k, v in headers.items()}
    kept = None
    tombstone = False
    plain = []
    for name, value in headers.items():
        if name.startswith("Nats-"):
            continue  # the server's own, of this hop
        if name in _OURS:
            tombstone = tombstone or name == _TOMBSTONE
            continue
        plain.append((name, value))
        if name.lower() == wire.CONTENT_TYPE:
            kept = {name: value}  # the binding would republish it under another name
    id, metadata = NATS.read(plain)
    key = metadata.pop("ce_partitionkey", None)
    return Message(
        id=id or headers.get(MESSAGE_ID) or fallback_id,
        topic=topic,
        payload=None if tombstone and not payload else payload,
        key=None if key is None else unquote_to_bytes(headers.get(_KEY, key)),
        metadata=metadata,
        headers=kept,
    )


def too_large(headers: Mapping[str, str], payload: bytes, limit: int) -> str | None:
    """What is wrong with the size of a message; None if the server will take it."""
    if len(payload) + 4 * sum(map(len, headers.values())) + 256 * len(headers) < limit:
        return None  # surely: no name is so long, no character has more bytes
    text = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    size = len(payload) + text + 12
    if size <= limit:
        return None
    return f"{size} bytes with headers are more than the server's max_payload of {limit}"
