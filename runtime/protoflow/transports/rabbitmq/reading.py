"""Decodes the AMQP 0-9-1 frames of messages: no content of a message can raise here.

The client library closes the connection for one value that it cannot decode, and the broker then
delivers the same message again. Here each part is read separately: text that is not UTF-8 is read
as Latin-1, values that are not text are kept as received, and unreadable parts are described in
`Properties.problem`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from struct import Struct, error
from typing import Final, TypeAlias

#: The methods with content, as their frames begin.
DELIVER: Final = b"\0\x3c\0\x3c"
GOT: Final = b"\0\x3c\0\x47"
RETURNED: Final = b"\0\x3c\0\x32"

_SHORT, _LONG, _LONGLONG = Struct(">H"), Struct(">I"), Struct(">Q")
_TEXT, _ARRAY, _TABLE, _TIMESTAMP = b"SAFT"
#: The sizes of values by their types; types that contain their own length are not listed.
_SIZES = {
    ord(kind): size
    for size, kinds in ((0, "V\0"), (1, "tbB"), (2, "su"), (4, "Iif"), (5, "D"), (8, "lLdT"))
    for kind in kinds
}
_LONG_KINDS = frozenset(b"SAFx")
_NUMBERS = {
    ord(kind): Struct(form)
    for kind, form in {
        "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I",
        "l": ">q", "L": ">q", "f": ">f", "d": ">d", "T": ">Q",
    }.items()
}  # fmt: skip
_LATEST_SECONDS = 0xFFFFFFFF  # the year 2106
_DEPTH = 8

#: The consumer tag, the delivery tag, the redelivered flag, and the exchange.
Handed: TypeAlias = tuple[str, int, bool, str]


class Properties:
    """The properties of a message.

    Attributes:
        texts: the text headers, by name.
        natives: all other headers as received: a byte for the type, then the value.
        timestamp: as received, in any unit.
        problem: why the rest could not be read; None if all was read.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    app_id: str | None = None
    problem: str | None = None

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.natives: dict[str, bytes] = {}


#: The properties in the order of their bits; None is a name that this code does not need.
_FIELDS: tuple[tuple[int, str | None], ...] = (
    (1 << 11, "priority"),
    (1 << 10, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, None),  # expiration
    (1 << 7, "message_id"),
    (1 << 6, "timestamp"),
    (1 << 5, "type"),
    (1 << 4, None),  # the user, which the broker has verified
    (1 << 3, "app_id"),
    (1 << 2, None),
)


def handed(method: bytes) -> Handed:
    """Returns the arguments of `basic.deliver`."""
    start = 5 + method[4]
    (tag,) = _LONGLONG.unpack_from(method, start)
    exchange = start + 10
    return (
        method[5:start].decode("latin-1"),
        tag,
        bool(method[start + 8] & 1),
        method[exchange : exchange + method[start + 9]].decode("latin-1"),
    )


def got(method: bytes) -> Handed:
    """Returns the arguments of `basic.get-ok`."""
    (tag,) = _LONGLONG.unpack_from(method, 4)
    return "", tag, bool(method[12] & 1), method[14 : 14 + method[13]].decode("latin-1")


def returned(method: bytes) -> str:
    """Returns the routing key of `basic.return`."""
    at = 7 + method[6]
    at += 1 + method[at]
    return method[at + 1 : at + 1 + method[at]].decode("latin-1")


def properties(header: bytes) -> tuple[int, Properties]:
    """Returns the size of the body that follows, and the properties. It raises nothing."""
    found = Properties()
    try:
        (size,) = _LONGLONG.unpack_from(header, 4)
    except error:
        found.problem = "its header frame is cut off"
        return 0, found
    try:
        _read(header, found)
    except (error, IndexError, ValueError) as problem:
        found.problem = f"its properties cannot be read: {problem}"
    return size, found


def _read(header: bytes, found: Properties) -> None:
    (flags,) = _SHORT.unpack_from(header, 12)
    at, more = 14, flags
    while more & 1:
        (more,) = _SHORT.unpack_from(header, at)
        at += 2
    if flags & 1 << 15:
        found.content_type, at = _short(header, at)
    if flags & 1 << 14:
        found.content_encoding, at = _short(header, at)
    if flags & 1 << 13:
        (length,) = _LONG.unpack_from(header, at)
        start, at = at + 4, at + 4 + length
        if at > len(header):
            raise ValueError("the table of headers is cut off")
        try:
            _headers(header, start, at, found)
        # the properties after the table are intact
        except (error, IndexError, ValueError) as problem:
            found.problem = f"its headers cannot be read: {problem}"
    at += bool(flags & 1 << 12)  # the delivery mode
    for flag, name in _FIELDS:
        if not flags & flag:
            continue
        value: object
        if name == "priority":
            value, at = header[at], at + 1
        elif name == "timestamp":
            value, at = _LONGLONG.unpack_from(header, at)[0], at + 8
        else:
            value, at = _short(header, at)
        if name is not None:
            setattr(found, name, value)


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("a property is cut off")
    raw = data[at + 1 : end]
    try:
        return raw.decode(), end
    except UnicodeDecodeError:
        return raw.decode("latin-1"), end


def _headers(data: bytes, at: int, end: int, found: Properties) -> None:
    texts, natives = found.texts, found.natives
    while at < end:
        start = at + 1
        at = start + data[at]
        try:
            name = data[start:at].decode()
        except UnicodeDecodeError:
            name = _foreign_name(data[start:at])
        stop = _end(data, at, end)
        if data[at] == _TEXT:
            try:
                texts.append((name, data[at + 5 : stop].decode()))
            except UnicodeDecodeError:
                natives[name] = data[at:stop]
        else:
            natives[name] = data[at:stop]
        at = stop


def _foreign_name(raw: bytes) -> str:
    # A name has at most 255 bytes in UTF-8; otherwise the message could not be published again.
    return raw.decode("latin-1") if len(raw) < 128 else raw.decode("ascii", "ignore")


def _end(data: bytes, at: int, end: int) -> int:
    """Returns the end of the value whose type is at `at`."""
    kind = data[at]
    if kind in _LONG_KINDS:
        stop = at + 5 + int(_LONG.unpack_from(data, at + 1)[0])
    elif kind in _SIZES:
        stop = at + 1 + _SIZES[kind]
    else:
        raise ValueError(f"a value has the unknown type {kind}")
    if stop > end:
        raise ValueError("a value is cut off")
    return stop


def number(native: bytes) -> int | float | None:
    """Returns the number in a header; None if there is none. Timestamps are not numbers."""
    form = _NUMBERS.get(native[0])
    if form is None or native[0] == _TIMESTAMP or len(native) != 1 + form.size:
        return None
    value: int | float = form.unpack_from(native, 1)[0]
    return value


def scalar(native: bytes) -> str | None:
    """Returns a header as text by the CloudEvents type system; None if it has no such form."""
    match native[:1]:
        case b"t":
            return "true" if native[1:] != b"\0" else "false"
        case b"T":
            return time_text(int(_LONGLONG.unpack_from(native, 1)[0]), 1)
        case _:
            value = number(native)
            return None if value is None else str(value)


def time_text(value: int, unit: int) -> str:
    """Returns a point in time as text; an implausible value is returned unchanged."""
    seconds = moment(value, unit)
    if seconds is None:
        return str(value)
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def moment(value: int, unit: int = 1) -> float | None:
    """Returns seconds since the epoch. AMQP uses seconds, other programs milli-, micro- or
    nanoseconds; the size of the number shows the unit. None if it fits no unit.

    Args:
        value: the number.
        unit: the lowest possible number of units in a second.
    """
    while unit <= 10**9:
        if abs(value) <= _LATEST_SECONDS * unit:
            return value / unit
        unit *= 1000
    return None


def deaths(native: bytes) -> list[tuple[bytes, dict[str, object]]]:
    """Returns the entries of the header `x-death`, each as received and decoded; invalid entries
    are left out."""
    found: list[tuple[bytes, dict[str, object]]] = []
    if native[:1] != b"A":
        return found
    at, end = 5, len(native)
    try:
        while at < end:
            stop = _end(native, at, end)
            if native[at] == _TABLE:
                found.append((native[at:stop], _table(native, at + 5, stop, _DEPTH)))
            at = stop
    except (error, IndexError, ValueError):
        pass
    return found


def _table(data: bytes, at: int, end: int, depth: int) -> dict[str, object]:
    fields: dict[str, object] = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        stop = _end(data, at, end)
        fields[data[start:at].decode("latin-1")] = _value(data, at, stop, depth)
        at = stop
    return fields


def _value(data: bytes, at: int, stop: int, depth: int) -> object:
    kind = data[at]
    if kind == _TEXT:
        return data[at + 5 : stop].decode("utf-8", "replace")
    if kind == _TIMESTAMP:
        return moment(int(_LONGLONG.unpack_from(data, at + 1)[0]))
    if kind == _ARRAY and depth:
        values: list[object] = []
        at += 5
        while at < stop:
            end = _end(data, at, stop)
            values.append(_value(data, at, end, depth - 1))
            at = end
        return values
    return number(data[at:stop])
