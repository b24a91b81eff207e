"""Raw HPUBs: blocks of headers that no client library makes."""

from __future__ import annotations

import asyncio
import json
import uuid
from urllib.parse import quote_from_bytes, urlsplit

from protoflow.transports.nats.names import JetStreamNames

from tests.acceptance.harness import Harness
from tests.hostile.table import NUMBERS, Hostile
from tests.hostile.writers import Parcel, raw

_SERVERS_OWN = (
    "Nats-Num-Delivered", "Nats-Sequence", "Nats-Stream", "Nats-Subject", "Nats-Time-Stamp",
    "Nats-Consumer", "Nats-Pending-Messages", "Nats-Pin-Id", "Nats-Last-Sequence",
    "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Stream",
    "Nats-Expected-Last-Msg-Id", "Nats-Msg-Size", "Nats-Trace-Dest",
    "Nats-Rollup", "Nats-Schedule-Next", "Nats-Scheduler",
)  # fmt: skip
_ORDERS = {"all": "all", "sub": "sub", "purge": "purge", "a subject": "victim"}
_START = b"NATS/1.0"


class JetStreamWriter:
    """Speaks NATS over a socket. `native` is a block of headers, which stands for the whole."""

    def __init__(self, harness: Harness) -> None:
        self._address = urlsplit(harness.url)
        self._names = JetStreamNames("protoflow")
        self._reply = f"_INBOX.{uuid.uuid4().hex}"
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.limit = 1_048_576 - 4_000

    def rows(self) -> list[Hostile]:
        rows = [
            Hostile(field="block of headers", kind=kind, native=block)
            for kind, block in _blocks().items()
        ]
        for name in _SERVERS_OWN:
            for kind, value in {**NUMBERS, **_ORDERS}.items():
                block = _START + b"\r\n" + name.encode() + b": " + raw(value) + b"\r\n\r\n"
                rows.append(Hostile(field=name, kind=kind, native=block))
        return rows

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port
        )
        await self._reader.readline()
        hello = b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
        self._writer.write(hello + f"SUB {self._reply}.* 1\r\nPING\r\n".encode())
        assert await self._reader.readline() == b"PONG\r\n"

    async def write(self, parcel: Parcel) -> bool:
        block = parcel.native if parcel.native is not None else self._block(parcel)
        payload = parcel.payload or b""
        subject = self._names.subject(parcel.topic)
        head = f"HPUB {subject} {self._reply}.1 {len(block)} {len(block) + len(payload)}\r\n"
        self._writer.write(head.encode() + block + payload + b"\r\n")
        try:
            async with asyncio.timeout(5):
                await self._writer.drain()
                return await self._taken()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self._writer.close()
            await self.open()
            return False

    async def wrongs(self) -> list[str]:
        return []

    async def close(self) -> None:
        self._writer.close()

    async def _taken(self) -> bool:
        """The server's answer: whether it is stored, for the first time."""
        while line := await self._reader.readline():
            words = line.split()
            if words[0] in (b"MSG", b"HMSG"):
                body = await self._reader.readexactly(int(words[-1]) + 2)
                if words[0] == b"HMSG":  # nobody there
                    return False
                answer = json.loads(body)
                return "error" not in answer and not answer.get("duplicate")
            if words[0] == b"PING":
                self._writer.write(b"PONG\r\n")
            if words[0] == b"-ERR":
                raise ConnectionResetError(line)
        raise ConnectionResetError

    def _block(self, parcel: Parcel) -> bytes:
        lines = [_START, b"ce-id: " + raw(parcel.id)]
        if parcel.key is not None:
            lines.append(b"ce-partitionkey: " + quote_from_bytes(parcel.key).encode())
        if parcel.payload is None:
            lines.append(b"pf_tombstone: 1")
        for name, value in parcel.metadata.items():
            name = "ce-" + name[3:] if name.startswith("ce_") else name
            lines.append(raw(name) + b": " + raw(value))
        return b"\r\n".join(lines) + b"\r\n\r\n"


def _blocks() -> dict[str, bytes]:
    bodies = {
        "name with a blank": b"X Y: v",
        "name in Latin-1": b"M\xfc: v",
        "name in UTF-8": "Ü: v".encode(),
        "no name": b": v",
        "slash": b"a/b: v",
        "parentheses": b"foo(x): v",
        "no colon": b"garbage",
        "only colons": b":::::",
        "zero": b"a\0b: c\0d",
        "line feed alone": b"a: v\nb: w",
        "carriage return alone": b"a: v\rb: w",
        "folded": b"a: v\r\n  more",
        "200 kB": b"a: " + b"v" * 200_000,
        "3,000 lines": b"\r\n".join(b"h%d: v" % n for n in range(3000)),
        "one name often": b"\r\n".join([b"ce-type: a"] * 50),
        "value in Latin-1": b"ce-type: M\xfcller",
        "percent without digits": b"ce-type: %zz%",
        "percent of no UTF-8": b"ce-id: %ff%fe",
        "percent of a surrogate": b"ce-id: %ED%A0%80",
        "quotes never closed": b'ce-type: "a\\',
        "list of encoded names": b"pf_encoded: ce-type,content-type\r\nce-type: a%0D%0Ab",
        "encoded to no end": b"pf_encoded: pf_encoded,,, ,\xff",
        "key of no UTF-8": b"ce-partitionkey: \xff\xfe",
        "key with broken percent": b"ce-partitionkey: %f",
        "key twice": b"ce-partitionkey: a\r\npf_key: b",
        "tombstone with a payload": b"pf_tombstone: 1",
        "message id of the server": b"Nats-Msg-Id: one",
        "message id of the server again": b"Nats-Msg-Id: one",
        "message id of no UTF-8": b"nats-msg-id: \xff",
        "message lives for ever": b"Nats-TTL: never",
        "schedule": b"Nats-Schedule: nonsense",
    }
    blocks = {kind: _START + b"\r\n" + body + b"\r\n\r\n" for kind, body in bodies.items()}
    for status in (
        "100 Idle Heartbeat", "404 No Messages", "408 Request Timeout", "409 Consumer Deleted",
        "409 Leadership Change", "409 Exceeded MaxAckPending", "423 Pin", "503", "x", "99999",
    ):  # fmt: skip
        blocks[f"status {status}"] = _START + f" {status}\r\n\r\n".encode()
    blocks |= {
        "other version": b"NATS/9.9\r\na: b\r\n\r\n",
        "no version": b"XXXX\r\n\r\n",
        "never ends": _START + b"\r\na: b",
        "nothing": b"",
        "only ends": b"\r\n\r\n\r\n",
    }
    return blocks
