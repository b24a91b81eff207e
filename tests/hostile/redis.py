"""Raw XADDs: fields and ids that no client library makes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from protoflow.transports.redis import names

from tests.acceptance.harness import Harness
from tests.hostile.table import NUMBERS, TEXTS, Hostile
from tests.hostile.writers import Parcel, raw

_OWN = ("_id", "_key", "_due", "_payload", "_to", "__id", "_", "__", "_unknown", "")


@dataclass(frozen=True, kw_only=True)
class Native:
    """What is special about an entry.

    Attributes:
        fields: fields beside those of the message.
        only: whether those stand for the whole entry.
        id: the id that the writer wants.
        options: what stands before the id.
        to_nobody: no group gets it.
    """

    fields: Sequence[bytes] = ()
    only: bool = False
    id: bytes = b"*"
    options: Sequence[bytes] = ()
    to_nobody: bool = False


class RedisWriter:
    """Speaks RESP over a socket. `native` is a `Native`."""

    limit = 20_000_000

    def __init__(self, harness: Harness) -> None:
        self._address = urlsplit(harness.url)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._to_nobody: list[tuple[bytes, bytes]] = []

    def rows(self) -> list[Hostile]:
        rows = [
            Hostile(
                field=f"entry of {topic}",
                kind=kind,
                topic=topic,
                native=Native(fields=fields, only=True),
            )
            for topic in ("tasks", "notes")
            for kind, fields in _entries().items()
        ]
        for name in _OWN:
            for kind, value in TEXTS.items():
                native = Native(fields=[raw(name), raw(value)], to_nobody=name == "_to")
                rows.append(Hostile(field=f"field {name}", kind=kind, native=native))
        for kind, value in {**NUMBERS, **_DUES}.items():
            native = Native(fields=[b"_due", raw(value)])
            rows.append(Hostile(field="_due", kind=kind, handled=True, native=native))
        for kind, id in _IDS.items():
            rows.append(Hostile(field="entry id", kind=kind, topic="things", native=Native(id=id)))
        return rows

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port, limit=1 << 26
        )

    async def write(self, parcel: Parcel) -> bool:
        native: Native = parcel.native or Native()
        fields = [*native.fields] if native.only else [*_fields(parcel), *native.fields]
        stream = names.stream("protoflow", parcel.topic, 0).encode()
        answer = await self._ask(b"XADD", stream, *native.options, native.id, *fields)
        if not isinstance(answer, bytes):
            return False
        if native.to_nobody:
            self._to_nobody.append((stream, answer))
        return not native.to_nobody

    async def wrongs(self) -> list[str]:
        return [
            f"{id!r} is for nobody, and still lies in {stream!r}"
            for stream, id in self._to_nobody
            if await self._ask(b"XRANGE", stream, id, id)
        ]

    async def close(self) -> None:
        self._writer.close()

    async def _ask(self, *words: bytes) -> Any:
        """What the server answers: bytes, or how many items; None: it refused."""
        lines = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)]
        self._writer.write(b"".join(lines))
        await self._writer.drain()
        return await self._answer()

    async def _answer(self) -> Any:
        line = await self._reader.readline()
        count = line[1:].strip()
        if line.startswith(b"$"):
            return (await self._reader.readexactly(int(count) + 2))[:-2]
        if line.startswith(b"*"):
            return len([await self._answer() for _ in range(int(count))])
        if not line.startswith(b"-"):
            raise ConnectionResetError(line)
        return None


def _fields(parcel: Parcel) -> list[bytes]:
    fields = [b"_id", raw(parcel.id)]
    if parcel.key is not None:
        fields += (b"_key", parcel.key)
    if parcel.payload is not None:
        fields += (b"_payload", parcel.payload)
    for name, value in parcel.metadata.items():
        fields += (raw(name), raw(value))
    return fields


#: Delays of nobody's; a time that will come is a delay, and no mistake.
_DUES = {
    "hexadecimal": "0x7fffffffffffffff",
    "a fraction": "99999999999999.5",
    "with blanks": " 99999999999999 ",
    "signed": "+99999999999999",
    "in thousands": "9e15",
    "20 digits": "9" * 20,
    "not a number, signed": "-nan",
    "words for infinity": "Infinity",
}
#: Those that come later are beyond; the last leaves room for those.
_IDS = {
    "from the past": b"1-1",
    "not an id": b"soon",
    "of the year 9999": b"253402300800000-0",
    "beyond 53 bits": b"9007199254740993-9007199254740993",
    "the last time": b"18446744073709551615-1",
}


def _entries() -> dict[str, list[bytes]]:
    """Whole entries."""
    return {
        "one field": [b"a", b"b"],
        "one empty field": [b"", b""],
        "payload alone": [b"_payload", b"\x08\xff"],
        "payload twice": [b"_payload", b"\x08\xff", b"_payload", b"\xff"],
        "id twice": [b"_id", b"a", b"_id", b"b", b"_payload", b"\xff"],
        "id alone": [b"_id", b"a"],
        "key twice": [b"_key", b"k0", b"_key", b"k1", b"_payload", b"\xff"],
        "due twice": [b"_due", b"soon", b"_due", b"nan", b"_key", b"k0", b"_payload", b"\xff"],
        "name of no UTF-8": [b"\xff\xfe", b"a", b"_payload", b"\xff"],
        "value of no UTF-8": [b"a", b"\xff\xfe", b"_payload", b"\xff"],
        "name with line breaks": [b"a\r\n$-1\r\n", b"b", b"_payload", b"\xff"],
        "name with a zero": [b"a\0b", b"c\0d", b"_payload", b"\xff"],
        "name of 200 kB": [b"n" * 200_000, b"v", b"_payload", b"\xff"],
        "value of 200 kB": [b"n", b"v" * 200_000, b"_payload", b"\xff"],
        "3,000 fields": [part for n in range(3000) for part in (b"f%d" % n, b"v")],
        "one name often": [b"ce_type", b"a"] * 500,
        "of Watermill": [
            b"_watermill_message_uuid", b"u", b"metadata", b"\x81\xa1a\xa1b", b"payload", b"{}",
        ],
        "of FastStream": [b"__data__", b'{"data": "eyJ9", "headers": {}}'],
        "of arq": [b"job", b"\x80\x04\x95"],
        "only names of ours": [b"_id", b"", b"_key", b"", b"_payload", b"", b"_due", b""],
    }  # fmt: skip
