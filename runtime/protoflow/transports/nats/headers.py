"""Messages to NATS headers and back: the CloudEvents binding, and what it lacks.

NATS headers are text, without line breaks and blanks at their ends. So that metadata of
any text survive, values that headers would change are percent-encoded, and their names
listed in one header more. Key and tombstone have headers of their own.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from protoflow import wire
from protoflow.codecs.bindings import NATS
from protoflow.message import Message

MESSAGE_ID: Final = "Nats-Msg-Id"
_KEY: Final = "ce-partitionkey"  # CloudEvents' extension for keys
_PLAIN_KEY: Final = "pf_key"  # beside an envelope, where there are no attributes
_TOMBSTONE: Final = "pf_tombstone"
_ENCODED: Final = "pf_encoded"
_KNOWN_NAMES = 2000

_CHANGED = re.compile(r"[\r\n\0]|^\s|\s$")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def encode(message: Message) -> dict[str, str]:
    """The headers of a message. Raises ValueError for a name that cannot be one."""
    metadata = message.metadata
    headers = dict(NATS.headers(message.id, metadata))
    if message.headers:
        headers = {**message.headers, **headers}
    if message.key:
        structured = f"{NATS.prefix}id" not in headers
        headers[_PLAIN_KEY if structured else _KEY] = quote_from_bytes(message.key)
    if message.payload is None:
        headers[_TOMBSTONE] = "1"
    encoded = []
    for name, value in headers.items():
        if name not in _legal and not _check(name):
            raise ValueError(f"metadata {name!r} cannot be the name of a NATS header")
        if _CHANGED.search(value) is not None:
            headers[name] = quote(value)
            encoded.append(name)
    if encoded:
        headers[_ENCODED] = ",".join(encoded)
    return headers


#: Names that were found to be legal; they come again and again.
_legal: set[str] = set()


def _check(name: str) -> bool:
    if _NAME.fullmatch(name) is None:
        return False
    if len(_legal) >= _KNOWN_NAMES:
        _legal.clear()  # names that come from data must not pile up
    _legal.add(name)
    return True


class _Kind(enum.IntEnum):
    """What a header is."""

    PLAIN = 0
    ATTRIBUTE = 1  # of CloudEvents: percent-encoded
    ID = 2
    KEY = 3
    TOMBSTONE = 4
    CONTENT_TYPE = 5  # not by the name that the binding would publish it under
    OTHER = 6  # the server's own of this hop, and ours


#: Header name -> what it is, and the name in the metadata; names come again and again.
_known: dict[str, tuple[int, str]] = {}


def _learn(name: str) -> tuple[int, str]:
    kind, target = _classify(name)
    if len(_known) >= _KNOWN_NAMES:
        _known.clear()  # names that come from data must not pile up
    _known[name] = known = (int(kind), target)
    return known


def _classify(name: str) -> tuple[_Kind, str]:
    if name.startswith("Nats-") or name == _ENCODED:
        return _Kind.OTHER, name
    if name == _TOMBSTONE:
        return _Kind.TOMBSTONE, name
    if name.lower() in (_KEY, _PLAIN_KEY):
        return _Kind.KEY, name
    id, metadata = NATS.read([(name, "x")])
    if id is not None:
        plain = metadata or name == wire.MESSAGE_ID
        return (_Kind.PLAIN, name) if plain else (_Kind.ID, name)
    (target,) = metadata
    if target == wire.CONTENT_TYPE and name.lower() != NATS.content_type:
        return _Kind.CONTENT_TYPE, target
    return (_Kind.ATTRIBUTE if target.startswith(wire.CE_PREFIX) else _Kind.PLAIN), target


def decode(
    topic: str, payload: bytes, headers: Mapping[str, str] | None, fallback_id: str
) -> Message:
    """The message behind a payload and its headers; an id where they name none."""
    if not headers:
        return Message(id=fallback_id, topic=topic, payload=payload)
    if _ENCODED in headers:
        names = headers[_ENCODED].split(",")
        headers = {k: unquote(v) if k in names else v for k, v in headers.items()}
    metadata: dict[str, str] = {}
    id = key = kept = tombstone = None
    known = _known
    for name, value in headers.items():
        kind, target = known.get(name) or _learn(name)
        if kind == 0:
            metadata[target] = value
        elif kind == 1:
            metadata[target] = NATS.decode_value(value)
        elif kind == _Kind.ID:
            id = NATS.decode_value(value)
        elif kind == _Kind.KEY:
            key = unquote_to_bytes(value)
        elif kind == _Kind.TOMBSTONE:
            tombstone = True
        elif kind == _Kind.CONTENT_TYPE:
            metadata[target] = value
            kept = {name: value}
    return Message(
        id=headers.get(wire.WATERMILL_ID)
        or id
        or metadata.pop(wire.MESSAGE_ID, None)
        or headers.get(MESSAGE_ID)
        or fallback_id,
        topic=topic,
        payload=None if tombstone and not payload else payload,
        key=key,
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
