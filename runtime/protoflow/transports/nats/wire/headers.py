"""Messages to NATS headers and back: the CloudEvents binding, and what it lacks.

NATS headers are text, without line breaks and blanks at their ends. So that metadata of
any text survive, values that headers would change are percent-encoded, and their names
listed in one header more. Key and tombstone have headers of their own.

Names that begin with `Nats-` are orders to the server. They are never taken from data: neither
read into metadata nor written from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from protoflow import wire
from protoflow.codecs.bindings import NATS
from protoflow.message import Message

MESSAGE_ID: Final = "Nats-Msg-Id"
_KEY_NAME: Final = "ce-partitionkey"  # CloudEvents' extension for keys
_PLAIN_KEY_NAME: Final = "pf_key"  # beside an envelope, where there are no attributes
_TOMBSTONE_NAME: Final = "pf_tombstone"
_ENCODED: Final = "pf_encoded"
_ENCODED_MARK: Final = b"\r\npf_encoded:"
_KNOWN_NAMES = 500
_KNOWN_VALUES = 16
_LONG_LINE = 200

_BYTES: Final = (bytes, bytearray, memoryview)
_ORDER: Final = "nats-"
#: The server writes it into what a schedule made, and takes it out of all else.
FROM_A_SCHEDULE: Final = b"\r\nNats-Scheduler:"
#: The server's limit for the headers of a message in a stream.
STREAM_HEADERS: Final = 65_535

_CHANGED = re.compile(r"[\r\n\0]|^\s|\s$")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def encode(message: Message) -> dict[str, str]:
    """The headers of a message. Raises ValueError for a name that cannot be one, or that is an
    order to the server."""
    metadata = message.metadata
    if not message.id.isascii():
        message.id.encode()  # the binding would write any lone surrogate alike: two ids, one text
    headers = dict(NATS.headers(message.id, metadata))
    if message.headers:
        headers = {**message.headers, **headers}
    if message.key:
        structured = f"{NATS.prefix}id" not in headers
        headers[_PLAIN_KEY_NAME if structured else _KEY_NAME] = quote_from_bytes(message.key)
    if message.payload is None:
        headers[_TOMBSTONE_NAME] = "1"
    encoded = []
    for name, value in headers.items():
        if name not in _legal:
            _check(name)
        if _CHANGED.search(value) is not None:
            headers[name] = quote(value)
            encoded.append(name)
    if encoded:
        headers[_ENCODED] = ",".join(encoded)
    return headers


#: Names that were found to be legal; they come again and again.
_legal: set[str] = set()


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"metadata {name!r} cannot be the name of a NATS header")
    if name[:5].lower() == _ORDER:
        raise ValueError(f"metadata {name!r} is a command to the server; rename it")
    if len(_legal) >= _KNOWN_NAMES:
        _legal.clear()  # names that come from data must not pile up
    _legal.add(name)


def block(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand on the wire. Raises ValueError for text that cannot be encoded."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    try:
        return f"NATS/1.0\r\n{lines}\r\n".encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "id, key or metadata hold a lone surrogate, which no encoding has"
        ) from error


def deduplication(id: str) -> str:
    """A deduplication id as a header's value, different for every id."""
    return quote(id) if "%" in id or _CHANGED.search(id) is not None else id


def schedule(due: float, subject: str) -> dict[str, str]:
    """The order to keep a message until then, and to publish it to a subject."""
    at = datetime.fromtimestamp(due, UTC).isoformat().replace("+00:00", "Z")
    return {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": subject}


# What a header is; plain numbers, for they are looked at with every message.
_METADATA: Final = 0
_ID: Final = 1
_WATERMILL: Final = 2  # an id, and metadata
_SERVER: Final = 3  # an id, where there is no other
_KEY: Final = 4
_TOMBSTONE: Final = 5
_CONTENT_TYPE: Final = 6  # not by the name that the binding would publish it under
_OTHER: Final = 7  # the server's own of this hop, and ours


class _Name:
    """What is known of a header's name.

    Attributes:
        kind: what the header is.
        target: the name in the metadata.
        attribute: of CloudEvents: percent-encoded.
        room: how many more of its lines are remembered; names have few values, or very many.
    """

    __slots__ = ("attribute", "kind", "room", "target")

    def __init__(self, kind: int, target: str, *, attribute: bool = False) -> None:
        self.kind = kind
        self.target = target
        self.attribute = attribute
        self.room = 0 if kind else _KNOWN_VALUES


#: Names come again and again, and so does some metadata as a whole: type, source, ...
_names: dict[str, _Name] = {}
_lines: dict[str, tuple[str, str]] = {}


def _learn(name: str) -> _Name:
    if len(_names) >= _KNOWN_NAMES:
        _names.clear()  # names that come from data must not pile up
        _lines.clear()
    known = _names[name] = _classify(name)
    return known


def _classify(name: str) -> _Name:
    if name == MESSAGE_ID:
        return _Name(_SERVER, name)
    if name[:5].lower() == _ORDER or name == _ENCODED or _NAME.fullmatch(name) is None:
        return _Name(_OTHER, name)
    if name == _TOMBSTONE_NAME:
        return _Name(_TOMBSTONE, name)
    if name.lower() in (_KEY_NAME, _PLAIN_KEY_NAME):
        return _Name(_KEY, name)
    if name == wire.WATERMILL_ID:
        return _Name(_WATERMILL, name)
    id, metadata = NATS.read([(name, "x")])
    if id is not None:
        plain = name == wire.MESSAGE_ID
        return _Name(_METADATA if plain else _ID, name, attribute=not plain)
    (target,) = metadata
    if target == wire.CONTENT_TYPE and name.lower() != NATS.content_type:
        return _Name(_CONTENT_TYPE, name)
    return _Name(_METADATA, target, attribute=target.startswith(wire.CE_PREFIX))


def _read_line(line: str, encoded: Collection[str]) -> tuple[int, str, str]:
    """What a header is, the name of its metadata, and its value."""
    name, colon, value = line.partition(":")
    if not colon:
        return _OTHER, name, ""
    known = _names.get(name) or _learn(name)
    value = value.strip()
    if name in encoded:
        value = unquote(value)
    if known.attribute and ("%" in value or value[:1] == '"'):
        value = NATS.decode_value(value)
    if known.room and not encoded and len(line) <= _LONG_LINE:
        known.room -= 1
        _lines[line] = known.target, value
    return known.kind, known.target, value


def read(raw: bytes) -> dict[str, str]:
    """The headers as they came; what stands beside the protocol's name is `Status` and
    `Description`."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    _, status, description = f"{first}  ".split(" ", 2)
    headers = {"Status": status, "Description": description.strip()} if status else {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


def decode(topic: str, payload: bytes, raw: bytes) -> Message:
    """The message behind a payload and its headers as they came; its id is empty where they
    name none."""
    if not raw:
        return Message(id="", topic=topic, payload=payload)
    encoded = read(raw)[_ENCODED].split(",") if _ENCODED_MARK in raw else ()
    known = _lines.get
    metadata: dict[str, str] = {}
    found: list[str | None] = [None] * (_OTHER + 1)
    kept = None
    for line in raw.rstrip().decode("utf-8", "replace").split("\r\n")[1:]:
        if (seen := known(line)) is not None and not encoded:
            metadata[seen[0]] = seen[1]
            continue
        kind, target, value = _read_line(line, encoded)
        if not kind:
            metadata[target] = value
        elif kind == _CONTENT_TYPE:
            metadata[wire.CONTENT_TYPE] = value
            kept = {target: value}
        else:
            found[kind] = value
            if kind == _WATERMILL:
                metadata[target] = value
    text = found[_KEY]
    key = None
    if text is not None:
        key = unquote_to_bytes(text) if "%" in text else text.encode()
    return Message(
        id=found[_WATERMILL]
        or found[_ID]
        or metadata.pop(wire.MESSAGE_ID, None)
        or found[_SERVER]
        or "",
        topic=topic,
        payload=None if found[_TOMBSTONE] is not None and not payload else payload,
        key=key,
        metadata=metadata,
        headers=kept,
    )


def too_large(raw: bytes, payload: bytes, limit: int) -> str | None:
    """What is wrong with the size of a message; None if the server will take it."""
    if not isinstance(payload, _BYTES):
        return f"the payload is {type(payload).__name__}, not bytes"
    size = len(payload) + len(raw)
    if size <= limit:
        return None
    return f"{size} bytes with headers are more than the server's max_payload of {limit}"
