"""Encodes the AMQP 0-9-1 frames that are sent for each message.

pamqp builds all other frames; these few are own code because they are most of the cost of a
message. Numbers and layouts are those of the AMQP 0-9-1 specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_FRAME_OVERHEAD = 8
_BASIC = 60

_START = Struct(">BHI")
_METHOD_ID = Struct(">HH")
_LENGTH = Struct(">I")
_HEADER_START = Struct(">HHQH")
_TAG_METHOD = Struct(">BHIHHQBB")
_QOS = Struct(">BHIHHIHBB")
_TIMESTAMP = Struct(">Q")
_PUBLISH, _ACK, _NACK, _QOS_METHOD = 40, 80, 120, 10

#: The bits of the properties, in the order in which they are written.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
PRIORITY, CORRELATION_ID, REPLY_TO = 1 << 11, 1 << 10, 1 << 9
MESSAGE_ID, TIMESTAMP, TYPE, APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3


@lru_cache(4096)
def route(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """Returns the payload of `basic.publish`."""
    return b"".join(
        (
            _METHOD_ID.pack(_BASIC, _PUBLISH),
            b"\0\0",
            short_text(exchange),
            short_text(routing_key),
            b"\1" if mandatory else b"\0",
        )
    )


def content(
    channel: int, route: bytes, flags: int, properties: bytes, body: bytes, frame_max: int
) -> bytes:
    """Returns the frames of one published message."""
    size = len(body)
    parts = [
        _START.pack(_METHOD, channel, len(route)),
        route,
        _END,
        _START.pack(_HEADER, channel, len(properties) + 14),
        _HEADER_START.pack(_BASIC, 0, size, flags),
        properties,
        _END,
    ]
    step = frame_max - _FRAME_OVERHEAD
    if size <= step:
        if size:
            parts += (_START.pack(_BODY, channel, size), body, _END)
    else:
        for start in range(0, size, step):
            piece = body[start : start + step]
            parts += (_START.pack(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def header_fits(properties: bytes, frame_max: int) -> bool:
    """Whether the properties fit into their single frame."""
    return len(properties) + 14 + _FRAME_OVERHEAD <= frame_max


def ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    """`basic.ack`."""
    return _TAG_METHOD.pack(_METHOD, channel, 13, _BASIC, _ACK, tag, multiple, 0xCE)


def requeue(channel: int, tag: int, multiple: bool = False) -> bytes:
    """Returns `basic.nack` with requeue."""
    return _TAG_METHOD.pack(_METHOD, channel, 13, _BASIC, _NACK, tag, multiple | 2, 0xCE)


def prefetch(channel: int, count: int) -> bytes:
    """Returns `basic.qos` for future consumers."""
    return _QOS.pack(_METHOD, channel, 11, _BASIC, _QOS_METHOD, 0, count, 0, 0xCE)


def short_text(text: str) -> bytes:
    """Returns a short string. Raises ValueError beyond 255 bytes."""
    data = text.encode()
    return bytes((len(data),)) + data


def timestamp(seconds: float) -> bytes:
    """Returns a time in whole seconds."""
    return _TIMESTAMP.pack(max(int(seconds), 0))


def ticks(value: int) -> bytes:
    """Returns a time as received."""
    return _TIMESTAMP.pack(value)


def table(fields: Mapping[str, str | bytes]) -> bytes:
    """Returns a table of text values and of values as received, which are a byte for the type and
    the value. Raises ValueError for names beyond 255 bytes."""
    parts = [b""]
    for name, value in fields.items():
        key = name.encode()
        if isinstance(value, str):  # nearly all names are
            data = value.encode()
            parts += (_name(key), key, b"S", _LENGTH.pack(len(data)), data)
        else:
            parts += (_name(key), key, value)
    parts[0] = _LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def array(values: Sequence[bytes]) -> bytes:
    """Returns an array of values as received."""
    data = b"".join(values)
    return b"A" + _LENGTH.pack(len(data)) + data


def _name(key: bytes) -> bytes:
    if len(key) > 255:
        raise ValueError("the name of a header is longer than 255 bytes")
    return bytes((len(key),))
