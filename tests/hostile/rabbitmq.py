"""AMQP frames put together by hand: properties and headers of any bytes and types."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame
from aiormq.exceptions import AMQPError
from protoflow.transports.rabbitmq.names import Names

from tests.acceptance.harness import Harness
from tests.hostile.table import Hostile
from tests.hostile.writers import Parcel, raw

#: The properties in the order of their bits, from 15 on.
_PROPERTIES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
_FRAME = 131_072 - 8


@dataclass(frozen=True, kw_only=True)
class Native:
    """What is special about a message: properties as they stand on the wire, headers with the
    mark of their type."""

    properties: Mapping[str, bytes] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    table: bytes | None = None
    #: Names of other topics' routing keys, `{victim}` among them.
    copies: tuple[str, tuple[bytes, ...]] | None = None
    declared_size: int | None = None


def short(data: bytes) -> bytes:
    return bytes((min(len(data), 255),)) + data[:255]


def string(data: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(data)) + data


def table(items: Iterator[tuple[bytes, bytes]] | tuple[tuple[bytes, bytes], ...]) -> bytes:
    body = b"".join(short(name) + value for name, value in items)
    return struct.pack(">I", len(body)) + body


class RabbitWriter:
    """One connection; a channel for each message, since the broker closes it with any mistake."""

    limit = 4_000_000

    def __init__(self, harness: Harness) -> None:
        self._url = harness.url
        self._names = Names("protoflow", 1)
        self._victim = f"victim-{uuid.uuid4().hex}"
        self._copied = 0
        self._connection: Any

    def rows(self) -> list[Hostile]:
        return [
            Hostile(field=field, kind=kind, native=native) for field, kind, native in _natives()
        ]

    async def open(self) -> None:
        self._connection = await aiormq.connect(self._url)
        channel = await self._connection.channel()
        await channel.queue_declare(self._victim, auto_delete=False, exclusive=False)
        await channel.queue_bind(self._victim, "protoflow", routing_key=self._victim)

    async def write(self, parcel: Parcel) -> bool:
        native = parcel.native or Native()
        try:
            async with asyncio.timeout(5):
                channel = await self._connection.channel(publisher_confirms=False)
                frame = ChannelFrame(
                    payload=self._frames(channel.number, parcel, native), should_close=False
                )
                channel.write_queue.put_nowait(frame)
                await channel.queue_declare(self._victim, passive=True)  # so it has been read
                await channel.close()
        except (AMQPError, OSError, RuntimeError, TimeoutError, asyncio.CancelledError):
            if self._connection.is_closed:
                self._connection = await aiormq.connect(self._url)
            return False
        self._copied += native.copies is not None
        return True

    async def wrongs(self) -> list[str]:
        channel = await self._connection.channel()
        count = (await channel.queue_declare(self._victim, passive=True)).message_count
        if count > self._copied:
            return [f"{count} copies of {self._copied} messages reached a queue of somebody else"]
        return []

    async def close(self) -> None:
        channel = await self._connection.channel()
        await channel.queue_delete(self._victim)
        await self._connection.close()

    def _frames(self, channel: int, parcel: Parcel, native: Native) -> bytes:
        route = short(b"protoflow") + short(self._names.routing_key(parcel.topic).encode())
        method = struct.pack(">HHH", 60, 40, 0) + route + b"\0"
        properties = self._properties(parcel, native)
        flags = sum(1 << (15 - _PROPERTIES.index(name)) for name in properties)
        values = b"".join(properties[name] for name in _PROPERTIES if name in properties)
        body = parcel.payload or b""
        size = len(body) if native.declared_size is None else native.declared_size
        header = struct.pack(">HHQH", 60, 0, size, flags) + values
        pieces = [body[at : at + _FRAME] for at in range(0, len(body), _FRAME)]
        frames = [(1, method), (2, header), *((3, piece) for piece in pieces)]
        return b"".join(
            struct.pack(">BHI", kind, channel, len(data)) + data + b"\xce" for kind, data in frames
        )

    def _properties(self, parcel: Parcel, native: Native) -> dict[str, bytes]:
        headers = [(b"cloudEvents_id", string(raw(parcel.id)))]
        properties = {"message_id": short(raw(parcel.id)), "delivery_mode": b"\2"}
        if parcel.key is not None:
            headers.append((b"pf_key", string(parcel.key)))
        if parcel.payload is None:
            headers.append((b"pf_tombstone", string(b"1")))
        for name, value in parcel.metadata.items():
            data = raw(value)
            if name == "content-type" and len(data) < 256:
                properties["content_type"] = short(data)
                continue
            known = b"cloudEvents_" + raw(name)[3:] if name.startswith("ce_") else raw(name)
            headers.append((known, string(data)))
        headers += native.headers
        if native.copies is not None:
            name, keys = native.copies
            items = [string(key.replace(b"{victim}", self._victim.encode())) for key in keys]
            packed = b"".join(items)
            headers.append((name.encode(), b"A" + struct.pack(">I", len(packed)) + packed))
        properties["headers"] = native.table or table(tuple(headers))
        return {**properties, **native.properties}


_TEXTS = {
    "Latin-1": b"M\xfcller", "empty": b"", "255 bytes": b"\xc3" * 255, "line breaks": b"a\r\nb",
    "zero": b"a\0b",
}  # fmt: skip
_NOW = 1_753_500_000


def _deep(mark: bytes, depth: int) -> bytes:
    value = string(b"bottom")
    for _ in range(depth):
        inner = short(b"a") + value if mark == b"F" else value
        value = mark + struct.pack(">I", len(inner)) + inner
    return value


_TYPED = {
    "largest": b"l" + struct.pack(">q", 2**63 - 1),
    "smallest": b"l" + struct.pack(">q", -(2**63)),
    "nanoseconds": b"T" + struct.pack(">Q", _NOW * 10**9),
    "last time": b"T" + struct.pack(">Q", 2**64 - 1),
    "NaN": b"d" + struct.pack(">d", float("nan")),
    "infinity": b"d" + struct.pack(">d", float("inf")),
    "decimal": b"D\xff" + struct.pack(">i", -1),
    "void": b"V",
    "bytes": b"x" + struct.pack(">I", 3) + b"\xff\xfe\0",
    "truth": b"t\1",
    "Latin-1": string(b"M\xfcller"),
    "deep lists": _deep(b"A", 60),
    "deep tables": _deep(b"F", 60),
    "table with a name in Latin-1": b"F" + table(((b"\xfc", b"V"),)),
    "negative": b"I" + struct.pack(">i", -1),
    "octet": b"b\x80",
    "short": b"s\x80\0",
    "float": b"f\x7f\xff\xff\xff",
}
_NAMES = (
    b"x-any", b"cloudEvents_time", b"cloudEvents:time", b"ce-time", b"cloudEvents_type",
    b"cloudEvents_id", b"content-type", b"pf_key", b"pf_key_encoding", b"pf_tombstone",
    b"pf_attempt", b"pf_due", b"pf_group", b"x-delivery-count", b"x-death", b"CC", b"BCC",
    b"x-first-death-queue", b"x-last-death-exchange", b"x-acquired-count", b"x-delay",
    b"x-opt-delivery-count", b"correlation_id",
)  # fmt: skip


def _natives() -> Iterator[tuple[str, str, Native]]:
    for place, name in enumerate(_NAMES):
        for number, (kind, value) in enumerate(_TYPED.items()):
            if (place + number) % 3 == 0 or name in (b"x-any", b"x-death", b"x-delivery-count"):
                yield name.decode(), f"typed, {kind}", Native(headers=((name, value),))
    for property in (
        "content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type",
        "app_id", "cluster_id",
    ):  # fmt: skip
        for kind, data in _TEXTS.items():
            yield f"property {property}", kind, Native(properties={property: short(data)})
    for kind, seconds in {
        "0": 0, "microseconds": _NOW * 10**6, "nanoseconds": _NOW * 10**9, "2^62": 2**62,
        "2^64 - 1": 2**64 - 1, "year 10000": 253402300800,
    }.items():  # fmt: skip
        stamp = struct.pack(">Q", seconds)
        yield "property timestamp", kind, Native(properties={"timestamp": stamp})
    for number in (0, 7, 255):
        octet = bytes((number,))
        yield "property delivery_mode", str(number), Native(properties={"delivery_mode": octet})
        yield "property priority", str(number), Native(properties={"priority": octet})
    for kind, data in {"words": b"soon", "huge": b"9" * 30, "a day": b"86400000"}.items():
        yield "property expiration", kind, Native(properties={"expiration": short(data)})
    yield "property user_id", "somebody else", Native(properties={"user_id": short(b"root")})
    for header in ("CC", "BCC"):
        for kind, key in {"a queue of somebody else": b"{victim}", "no UTF-8": b"\xff"}.items():
            yield f"{header} of keys", kind, Native(copies=(header, (key,)))
    yield from _tables()


def _tables() -> Iterator[tuple[str, str, Native]]:
    for kind, name in {"Latin-1": b"M\xfcx", "empty": b"", "long": b"n" * 255}.items():
        yield "name of a header", kind, Native(headers=((name, string(b"v")),))
    many = tuple((b"h%d" % n, string(b"v")) for n in range(4000))
    yield "headers", "4,000", Native(headers=many)
    yield "headers", "100 kB in one", Native(headers=((b"h", string(b"v" * 100_000)),))
    death = (
        (b"queue", string(b"protoflow/{topic}/{group}/retry-5s")),
        (b"count", b"l" + b"\xff" * 8),
    )
    for kind, value in {"forged": b"F" + table(death), "of numbers": b"l" + b"\0" * 8}.items():
        deaths = b"A" + struct.pack(">I", len(value)) + value
        yield "x-death as a list", kind, Native(headers=((b"x-death", deaths),))
    for kind, data in {
        "longer than its frame": struct.pack(">I", 2**31) + b"x",
        "cut": struct.pack(">I", 9) + short(b"a") + b"S\0\0\0\x20ab",
        "unknown type": struct.pack(">I", 3) + short(b"a") + b"?",
        "nothing": struct.pack(">I", 0),
    }.items():
        yield "table of headers", kind, Native(table=data)
    yield "body", "longer than announced", Native(declared_size=1)
    yield "body", "shorter than announced", Native(declared_size=10_000)
