"""Confluent's framing of payloads: which schema of a registry, and which message of that schema.

A frame is a magic byte, the schema's id (4 bytes) or GUID (16 bytes), and the path of the message
in the .proto file. It precedes the payload, or is the value of a header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from protoflow.errors import DecodeError

#: The header of frames that are not in the payload. The header of keys is not used here.
HEADER: Final = "__value_schema_id"
#: The highest id of a schema: it has 4 bytes.
LARGEST_ID: Final = 2**32 - 1
_BY_ID: Final = 0
_BY_GUID: Final = 1
_MAGIC: Final = b"\0\1"
_ID: Final = struct.Struct(">BI")
#: Deeper than protobuf nests, and more messages than a file has.
_DEEPEST: Final = 100
_LONGEST_VARINT: Final = 5


class Frame(NamedTuple):
    """A frame.

    Attributes:
        schema: the id of the schema, or its GUID.
        path: the place of the message: its index in the file, then in each message around it.
    """

    schema: int | UUID
    path: tuple[int, ...]

    def __bytes__(self) -> bytes:
        """The frame as written before a payload or into a header."""
        if isinstance(self.schema, UUID):
            head = bytes([_BY_GUID]) + self.schema.bytes
        else:
            head = _ID.pack(_BY_ID, self.schema)
        if self.path == (0,):
            return head + b"\0"  # the short form of the most frequent path
        return head + b"".join(map(_zigzag, (len(self.path), *self.path)))

    def __str__(self) -> str:
        """The frame for people: `schema id 7, message 0.1`."""
        kind = "schema GUID" if isinstance(self.schema, UUID) else "schema id"
        return f"{kind} {self.schema}, message {'.'.join(map(str, self.path))}"


def is_framed(payload: bytes) -> bool:
    """Whether a payload begins with a frame. Protobuf never begins with 0 or 1, which would be
    field 0, and JSON begins with text."""
    return payload[:1] in _MAGIC and bool(payload)


def read(data: bytes) -> tuple[Frame, int]:
    """Returns the frame at the start of a payload or a header, and its length.

    Raises:
        DecodeError: there is no frame.
    """
    if data[:1] == b"\0" and len(data) > _ID.size:
        schema: int | UUID = _ID.unpack_from(data)[1]
        at = _ID.size
    elif data[:1] == b"\1" and len(data) > 17:
        schema, at = UUID(bytes=data[1:17]), 17
    else:
        raise DecodeError(f"{len(data)} bytes begin with no frame of a schema registry")
    count, at = _read_zigzag(data, at)
    if not count:
        return Frame(schema, (0,)), at
    if not 0 < count <= _DEEPEST:
        raise DecodeError(f"the frame of a schema registry has {count} message indexes")
    path: list[int] = []
    for _ in range(count):
        index, at = _read_zigzag(data, at)
        path.append(index)
    if min(path) < 0:
        raise DecodeError("the frame of a schema registry has a negative message index")
    return Frame(schema, tuple(path)), at


def header_of(headers: Any) -> bytes | None:
    """Returns the frame in the headers of a message. Only Kafka has binary headers."""
    if isinstance(headers, Iterable) and not isinstance(headers, Mapping | str | bytes):
        for header in headers:
            if isinstance(header, tuple) and header[:1] == (HEADER,):
                value = header[1]
                return value if isinstance(value, bytes) else None
    return None


def without_frame(payload: bytes) -> bytes:
    """Returns a payload without its frame, or as it is. Raises DecodeError."""
    return payload[read(payload)[1] :] if is_framed(payload) else payload


def _zigzag(value: int) -> bytes:
    value <<= 1  # indexes are never negative
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_zigzag(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + place + 1
    raise DecodeError("the frame of a schema registry is cut off")
