"""Frames: the records of every file here, each with its length and a checksum.

    magic     4 bytes  "PFL1"
    length    4 bytes  the length of the body
    checksum  4 bytes  CRC-32 of salt, position, length and body
    body
    length    4 bytes  again, so that the last record is found from the end

Numbers are little-endian. The salt is random and differs per topic, and the position is that of the
frame in its log. So bytes in a payload cannot pass for a frame, nor can a frame at another place.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

MAGIC: Final = b"PFL1"
_HEAD: Final = struct.Struct("<4sII")
_SEED: Final = struct.Struct("<QQI")
_TAIL: Final = struct.Struct("<I")
HEAD: Final = _HEAD.size
TAIL: Final = _TAIL.size
#: The bytes of a frame beside its body.
EXTRA: Final = HEAD + TAIL
#: No body is larger; a length above it is damage.
LARGEST: Final = 1 << 30


def pack(salt: int, position: int, body: bytes) -> bytes:
    """Returns the frame of a body at a position."""
    length = len(body)
    checksum = zlib.crc32(body, zlib.crc32(_SEED.pack(salt, position, length)))
    return b"".join((_HEAD.pack(MAGIC, length, checksum), body, _TAIL.pack(length)))


def length_at(data: bytes, offset: int) -> int | None:
    """Returns the length of a frame from its head; None if this is no head of a frame."""
    if len(data) - offset < HEAD:
        return None
    magic, length, _ = _HEAD.unpack_from(data, offset)
    return None if magic != MAGIC or length > LARGEST else int(length) + EXTRA


def body_at(salt: int, position: int, data: bytes, offset: int) -> bytes | None:
    """Returns the body of a frame, if all of it is there and its checksum is right."""
    size = length_at(data, offset)
    if size is None or len(data) - offset < size:
        return None
    _, length, checksum = _HEAD.unpack_from(data, offset)
    body = data[offset + HEAD : offset + HEAD + length]
    if zlib.crc32(body, zlib.crc32(_SEED.pack(salt, position, length))) != checksum:
        return None
    (again,) = _TAIL.unpack_from(data, offset + HEAD + length)
    return body if again == length else None


def frames(salt: int, base: int, data: bytes, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Yields offset, end and body of the whole frames from an offset on, up to the first other."""
    while (body := body_at(salt, base + offset, data, offset)) is not None:
        end = offset + len(body) + EXTRA
        yield offset, end, body
        offset = end


def next_frame(salt: int, base: int, data: bytes, offset: int) -> int | None:
    """Returns the offset of the first whole frame behind damage; None: there is none."""
    size = length_at(data, offset)  # the head may be intact
    if size is not None and body_at(salt, base + offset + size, data, offset + size) is not None:
        return offset + size
    found = data.find(MAGIC, offset + 1)
    while found >= 0:
        if body_at(salt, base + found, data, found) is not None:
            return found
        found = data.find(MAGIC, found + 1)
    return None


def last_length(tail: bytes) -> int:
    """Returns how long the last frame claims to be, from the last bytes of a file."""
    return int(_TAIL.unpack_from(tail, len(tail) - TAIL)[0]) + EXTRA
