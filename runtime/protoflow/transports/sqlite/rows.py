"""Messages to columns and back, many at a time.

Each step of a statement gives up the interpreter's lock and must win it back, which takes
up to 5 ms while the event loop is busy. So messages are written with one statement for
many rows, and read as one row that holds them all: text columns side by side, blobs in hex.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from protoflow.message import Message

#: Columns of a message but its sequence: head, key, payload, time, due, size.
COLUMNS = 6
#: Payloads above are fetched one by one, so as not to hold many of them in hex.
LARGE = 32 * 1024
#: No bound on the size of a message.
UNLIMITED = 1 << 62

_CHUNKS = (256, 64, 16, 4, 1)
_MAX_NAMES = 1024

_quote: Callable[[str], str] = encode_basestring_ascii
_names: dict[str, str] = {}


def _insert(count: int) -> str:
    rows = ",".join(f"(?1+{index},?,?,?,?,?,?)" for index in range(count))
    return f"INSERT INTO protoflow_messages VALUES {rows}"  # noqa: S608  numbers only


_INSERTS = {count: _insert(count) for count in _CHUNKS}

_READ = f"""
SELECT group_concat(sequence), '[' || group_concat(head) || ']',
  group_concat(CASE WHEN key IS NULL THEN '-' ELSE hex(key) END),
  group_concat(CASE WHEN payload IS NULL THEN '-'
    WHEN length(payload) > {LARGE} THEN '+' ELSE hex(payload) END),
  group_concat(time), group_concat(size)
FROM (SELECT * FROM protoflow_messages WHERE {{}} ORDER BY sequence)
"""  # noqa: S608  numbers only
_READ_RANGE = _READ.format("sequence BETWEEN ? AND ?")
_READ_LISTED = _READ.format("sequence IN (SELECT value FROM json_each(?))")


class Row(NamedTuple):
    """A message as it is stored."""

    sequence: int
    id: str
    metadata: dict[str, str]
    key: bytes | None
    payload: bytes | None
    time: float
    size: int

    def message(self, topic: str) -> Message:
        """The message, in the topic it came through."""
        return Message(
            id=self.id, topic=topic, payload=self.payload, key=self.key, metadata=self.metadata
        )


def head_of(message: Message) -> str:
    """Id and metadata as JSON text; ASCII, so its length is its size."""
    pairs = []
    for name, value in message.metadata.items():
        quoted = _names.get(name)
        if quoted is None:
            if len(_names) >= _MAX_NAMES:
                _names.clear()
            quoted = _names[name] = _quote(name) + ":"
        pairs.append(quoted + _quote(value))
    return f"[{_quote(message.id)},{{{','.join(pairs)}}}]"


def insert(connection: sqlite3.Connection, first: int, values: Sequence[Any]) -> None:
    """Stores messages; `values` holds COLUMNS values for each."""
    count, offset = len(values) // COLUMNS, 0
    while count:
        chunk = next(size for size in _CHUNKS if size <= count)
        connection.execute(_INSERTS[chunk], (first, *values[offset : offset + chunk * COLUMNS]))
        first += chunk
        offset += chunk * COLUMNS
        count -= chunk


def read_range(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Row]:
    """The messages from one sequence to another, in order."""
    return _rows(connection, connection.execute(_READ_RANGE, (first, last)).fetchone())


def read_listed(connection: sqlite3.Connection, sequences: Sequence[int]) -> Iterator[Row]:
    """The messages of these sequences, in order."""
    listed = json.dumps(sequences)
    return _rows(connection, connection.execute(_READ_LISTED, (listed,)).fetchone())


def _rows(connection: sqlite3.Connection, packed: Sequence[str | None]) -> Iterator[Row]:
    sequences, heads, keys, payloads, times, sizes = packed
    if not (sequences and heads and keys is not None and payloads is not None):
        return
    assert times is not None  # noqa: S101  for the type checker: one row has all or none
    assert sizes is not None  # noqa: S101
    unhex = bytes.fromhex
    for sequence, (id, metadata), key, payload, time, size in zip(
        map(int, sequences.split(",")),
        json.loads(heads),
        keys.split(","),
        payloads.split(","),
        map(float, times.split(",")),
        map(int, sizes.split(",")),
        strict=True,
    ):
        yield Row(
            sequence,
            id,
            metadata,
            None if key == "-" else unhex(key),
            _large(connection, sequence)
            if payload == "+"
            else None
            if payload == "-"
            else unhex(payload),
            time,
            size,
        )


def _large(connection: sqlite3.Connection, sequence: int) -> bytes:
    query = "SELECT payload FROM protoflow_messages WHERE sequence = ?"
    return bytes(connection.execute(query, (sequence,)).fetchone()[0])
