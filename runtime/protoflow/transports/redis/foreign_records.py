"""Entries of streams of other programs: one field holds the payload, the others are metadata.

Watermill's entries have the fields `payload`, `_watermill_message_uuid` and `metadata`, which is a
map in MessagePack. FastStream's entries have one field, with an envelope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from protoflow import wire
from protoflow.codecs.bindings import KAFKA
from protoflow.message import Message
from protoflow.transports.redis import faststream_records

#: The fields that hold the payload, in this order.
_PAYLOADS: Final = (b"payload", b"data", b"body", b"message", b"value", b"_payload")
_METADATA: Final = b"metadata"
#: What Go writes for a map that was not made.
_NIL: Final = b"\xc0"
#: By the first byte in MessagePack: the number of bytes of a length that follows.
_LENGTHS: Final = {0xDE: 2, 0xDF: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}


def decode_foreign(topic: str, place: str, fields: Sequence[bytes]) -> tuple[Message, str | None]:
    """Returns the message of an entry, and a problem if it could not be read completely."""
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    name: bytes | None = next((name for name in _PAYLOADS if name in found), None)
    if name is None and len(found) == 1:
        (name,) = found
    payload = None if name is None else found.pop(name)
    unreadable = None
    if name is None:
        unreadable = f"no field holds the payload; {_listed(found)} are there, payload is needed"
    texts: list[tuple[str, str]] = []
    try:
        if name == faststream_records.FIELD and payload is not None:
            payload, texts = faststream_records.opened(payload)
        if wire.WATERMILL_ID.encode() in found and _METADATA in found:
            texts += _unpacked(found.pop(_METADATA)).items()
        texts += ((field.decode(), value.decode()) for field, value in found.items())
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        unreadable = f"a field is not text: {type(error).__name__}"
    id, metadata = KAFKA.read(texts)
    return Message(id=id or place, topic=topic, payload=payload, metadata=metadata), unreadable


def _listed(found: Mapping[bytes, bytes]) -> str:
    return ", ".join(repr(name.decode(errors="replace"))[:50] for name in [*found][:10]) or "none"


def _unpacked(data: bytes) -> dict[str, str]:
    """Returns a map of texts in MessagePack. Raises ValueError, IndexError, UnicodeDecodeError."""
    if data == _NIL:
        return {}
    size, at = _length(data, 0)
    found: dict[str, str] = {}
    for _ in range(size):
        name, at = _string(data, at)
        found[name], at = _string(data, at)
    return found


def _string(data: bytes, at: int) -> tuple[str, int]:
    size, at = _length(data, at)
    return data[at : at + size].decode(), at + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if 0x80 <= first <= 0x8F:  # a short map
        return first & 0x0F, at + 1
    if 0xA0 <= first <= 0xBF:  # a short text
        return first & 0x1F, at + 1
    if first not in _LENGTHS:
        raise ValueError("no map of texts")
    stop = at + 1 + _LENGTHS[first]
    return int.from_bytes(data[at + 1 : stop], "big"), stop
