"""One raw client for each broker: it writes what no library of good manners would."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import Any, Protocol

from protoflow.errors import PublishError
from protoflow.message import Message

from tests.acceptance.harness import Harness
from tests.hostile.table import Hostile, Text


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What a writer puts down: a good neighbour, or a hostile row."""

    topic: str  # namespace included
    id: str
    key: bytes | None
    metadata: dict[str, Text]
    payload: bytes | None
    row: Hostile | None = None

    @property
    def native(self) -> Any:
        return self.row.native if self.row else None


class Writer(Protocol):
    """A raw client."""

    #: Bytes of payload that the broker takes beside small headers.
    limit: int

    def rows(self) -> list[Hostile]:
        """What only this client can write."""
        ...

    async def open(self) -> None: ...

    async def write(self, parcel: Parcel) -> bool:
        """Whether the broker took it."""
        ...

    async def wrongs(self) -> list[str]:
        """What must not have happened at the broker, and did."""
        ...

    async def close(self) -> None: ...


def text(value: Text) -> str:
    """As Python text; bytes that are no UTF-8 become lone surrogates."""
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


def raw(value: Text) -> bytes:
    """As bytes; lone surrogates are written down as they are, so this may be no UTF-8."""
    return value if isinstance(value, bytes) else value.encode(errors="surrogatepass")


class MemoryWriter:
    """Messages as Python objects, without any codec before them."""

    limit = 2_000_000

    def __init__(self, harness: Harness) -> None:
        self._lab = harness

    def rows(self) -> list[Hostile]:
        return []

    async def open(self) -> None: ...

    async def write(self, parcel: Parcel) -> bool:
        message = Message(
            id=parcel.id,
            topic=parcel.topic,
            payload=parcel.payload,
            key=parcel.key,
            metadata={name: text(value) for name, value in parcel.metadata.items()},
        )
        try:
            (error,) = await self._lab.transport.submit([message])
        except (PublishError, UnicodeError):
            return False
        return error is None

    async def wrongs(self) -> list[str]:
        return []

    async def close(self) -> None: ...


#: Columns that say what a message is; the others are the store's own bookkeeping.
_CONTENT = ("head", "key", "payload", "time", "size")
_VALUES: dict[str, object] = {
    "NULL": None,
    "text": "M\x00ller",
    "blob": b"\xff\xfe",
    "huge": 2**62,
    "negative": -(2**62),
    "infinity": float("inf"),
    "list": "[]",
    "object": "{}",
    "deep": "[" * 5000,
    "numbers": "[1,2,3,4,5]",
    "nulls": "[null,null,null,null,null]",
    "surrogate": '["\\ud800",{},null,0,1]',
    "truncated": '["a",{',
    "two": '["a",{},null,0,1],["b",{},null,0,1]',
}


class SqliteWriter(MemoryWriter):
    """Rows that somebody with another program changed. `native` is a column and a value."""

    def rows(self) -> list[Hostile]:
        return [
            Hostile(field=f"column {column}", kind=kind, native=(column, value))
            for column in _CONTENT
            for kind, value in _VALUES.items()
        ]

    async def write(self, parcel: Parcel) -> bool:
        if parcel.native is None:
            return await super().write(parcel)
        column, value = parcel.native
        marked = replace(parcel, payload=b"row to be changed")
        if not await super().write(marked):
            return False
        path = self._lab.url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=10)
        where = "UPDATE protoflow_messages SET {} = ? WHERE payload = ?"  # columns of the table
        try:
            with connection:
                connection.execute(where.format(column), (value, marked.payload))
                if column != "payload":
                    connection.execute(where.format("payload"), (parcel.payload, marked.payload))
        except sqlite3.IntegrityError:  # the schema itself refuses it
            with connection:
                statement = "DELETE FROM protoflow_messages WHERE payload = ?"
                connection.execute(statement, (marked.payload,))
            return False
        finally:
            connection.close()
        return True
