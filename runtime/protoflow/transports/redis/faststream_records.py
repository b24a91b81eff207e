"""The envelope in which FastStream puts a message into one field of an entry.

It is binary by default, and `{"data": ..., "headers": {...}}` in JSON in earlier versions.
"""

from __future__ import annotations

import json
from typing import Final

#: The field of the envelope.
FIELD: Final = b"__data__"
_MAGIC: Final = b"\x89BIN\r\n\x1a\n\x00\x01"
_PARTS: Final = {"data", "headers"}


def opened(data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """Returns the payload and its headers; data without an envelope is the payload. Raises
    ValueError."""
    if data.startswith(_MAGIC):
        return _binary(data)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return data, []
    if not isinstance(found, dict) or "data" not in found or found.keys() - _PARTS:
        return data, []
    payload, headers = found["data"], found.get("headers") or {}
    if not isinstance(payload, str) or not isinstance(headers, dict):
        return data, []
    return payload.encode(), [(name, str(value)) for name, value in headers.items()]


def _binary(data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    at, start = _number(data, 10, 4), _number(data, 14, 4)
    count, at = _number(data, at, 2), at + 2
    texts: list[str] = []
    for _ in range(2 * count):
        end = at + 2 + _number(data, at, 2)
        texts.append(data[at + 2 : end].decode())
        at = end
    if at > len(data) or start > len(data):
        raise ValueError("the envelope is cut off")
    return data[start:], [*zip(texts[::2], texts[1::2], strict=True)]


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("the envelope is cut off")
    return int.from_bytes(data[at : at + size], "big")
