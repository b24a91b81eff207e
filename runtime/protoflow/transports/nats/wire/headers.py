"""Converts messages to NATS headers and back: the CloudEvents binding with additions.

NATS headers are text without line breaks, and without blanks at their ends. Values that headers
would change are percent-encoded, and one more header lists their names, so all metadata is
preserved. Key and tombstone have separate headers.

Names that begin with `Nats-` are commands to the server. They are never copied from data: they are
neither read into metadata nor written from it.
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
# used with an envelope, which leaves no attributes in the headers
_PLAIN_KEY_NAME: Final = "pf_key"
_TOMBSTONE_NAME: Final = "pf_tombstone"
_ENCODED: Final = "pf_encoded"
_ENCODED_MARK: Final = b"\r\npf_encoded:"
_KNOWN_NAMES = 500
_KNOWN_VALUES = 16
_LONG_LINE = 200

_BYTES: Final = (bytes, bytearray, memoryview)
_ORDER: Final = "nats-"
#: The server writes this header into scheduled messages, and removes it from all others.
FROM_A_SCHEDULE: Final = b"\r\nNats-Scheduler:"
#: The server's limit for the headers of a message in a stream.
STREAM_HEADERS: Final = 65_535

_CHANGED = re.compile(r"[\r\n\0]|^\s|\s$")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def encode(message: Message) -> dict[str, str]:
    """Returns the headers of a message. Raises ValueError for an invalid name or a command to the
    server."""
    metadata = message.metadata
    if not message.id.isascii():
        # the binding would write every lone surrogate in the same way: two ids would become one
        message.id.encode()
    headers = dict(NATS.headers(message.id, metadata))
    if isinstance(message.headers, dict):  # not those of another transport
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


#: Names that passed the check; the same ones are used repeatedly.
_legal: set[str] = set()


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"metadata {name!r} cannot be the name of a NATS header")
    if name[:5].lower() == _ORDER:
        raise ValueError(f"metadata {name!r} is a command to the server; rename it")
    if len(_legal) >= _KNOWN_NAMES:
        _legal.clear()  # names can come from data, so the set is bounded
    _legal.add(name)


def block(headers: Mapping[str, str]) -> bytes:
    """Returns headers as sent on the wire. Raises ValueError for text that cannot be encoded."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    try:
        return f"NATS/1.0\r\n{lines}\r\n".encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "id, key or metadata contain a lone surrogate, which cannot be encoded"
        ) from error


def deduplication(id: str) -> str:
    """Returns a deduplication id as a header value, which is different for every id."""
    return quote(id) if "%" in id or _CHANGED.search(id) is not None else id


def schedule(due: float, subject: str) -> dict[str, str]:
    """Returns the command to keep a message until a time and then publish it to a subject."""
    at = datetime.fromtimestamp(due, UTC).isoformat().replace("+00:00", "Z")
    return {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": subject}


# The kinds of headers; plain numbers, because every message needs them.
_METADATA: Final = 0
_ID: Final = 1
_WATERMILL: Final = 2  # an id, and metadata
_SERVER: Final = 3  # an id, if there is no other
_KEY: Final = 4
_TOMBSTONE: Final = 5
_CONTENT_TYPE: Final = 6  # the binding would publish it under another name
_OTHER: Final = 7  # headers that the server or the runtime writes for this hop


class _Name:
    """The known facts about a header's name.

    Attributes:
        kind: the kind of the header.
        target: the name in the metadata.
        attribute: whether it is a percent-encoded CloudEvents attribute.
        room: how many more of its lines are cached; names have few values, or very many.
    """

    __slots__ = ("attribute", "kind", "room", "target")

    def __init__(self, kind: int, target: str, *, attribute: bool = False) -> None:
        self.kind = kind
        self.target = target
        self.attribute = attribute
        self.room = 0 if kind else _KNOWN_VALUES


#: Names repeat, and so do some whole lines of metadata: type, source and others.
_names: dict[str, _Name] = {}
_lines: dict[str, tuple[str, str]] = {}


def _learn(name: str) -> _Name:
    if len(_names) >= _KNOWN_NAMES:
        _names.clear()  # names can come from data, so the cache is bounded
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
    """Returns the kind of a header, the name of its metadata, and its value."""
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
    """Returns the headers as received; the status line becomes `Status` and `Description`."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    _, status, description = f"{first}  ".split(" ", 2)
    headers = {"Status": status, "Description": description.strip()} if status else {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


def decode(topic: str, payload: bytes, raw: bytes) -> Message:
    """Returns the message from a payload and its received headers; its id is empty if they name
    none."""
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
    """Returns the error in the size of a message; None if the server accepts it."""
    if not isinstance(payload, _BYTES):
        return f"the payload is {type(payload).__name__}, not bytes"
    size = len(payload) + len(raw)
    if size <= limit:
        return None
    return f"{size} bytes with headers are more than the server's max_payload of {limit}"
