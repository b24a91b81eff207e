"""Messages to columns and back, many at a time.

The head of a message is JSON: its id, metadata, key in hex, time of publishing and size;
so one call decodes the heads of many. Key, time and size also stand in columns, for SQL.

Each step of a statement releases the interpreter's lock and must get it again, which takes up to 5
ms while the event loop is busy. So messages are written with one statement for
many rows, and read as one row: text columns joined, blobs in hex.

For `bytes` and None the driver searches an adapter, which costs as much as the rest of the row. So
blobs are passed as `bytearray`, and 0 stands for no due time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from protoflow.message import Delivery, Message
from protoflow.transports.sqlite.damaged import UNREADABLE, check, read_one_by_one
from protoflow.transports.sqlite.schema import POSITION, REPLAYS

#: The columns of a message except its sequence: head, key, payload, time, due, size.
COLUMNS = 6
#: Larger payloads are fetched one by one, to limit the memory for their hex form.
LARGE = 32 * 1024
#: No limit on the size of a message.
UNLIMITED = 1 << 62

_CHUNKS = (256, 64, 16, 4, 1)
_MAX_NAMES = 1024

_quote: Callable[[str], str] = encode_basestring_ascii
_names: dict[str, str] = {}


def _insert(count: int) -> str:
    rows = ",".join(f"(?1+{index},?,?,?,?,nullif(?,0),?)" for index in range(count))
    return f"INSERT INTO protoflow_messages VALUES {rows}"  # noqa: S608  numbers only


_INSERTS = {count: _insert(count) for count in _CHUNKS}

_READ = f"""
SELECT group_concat(sequence), '[' || group_concat(head) || ']',
  group_concat(CASE WHEN payload IS NULL THEN '-'
    WHEN length(payload) > {LARGE} THEN '+' ELSE hex(payload) END)
FROM (SELECT * FROM protoflow_messages WHERE {{}} ORDER BY sequence)
"""  # noqa: S608  numbers only
_RANGE = "sequence BETWEEN ? AND ?"
_LISTED = "sequence IN (SELECT value FROM json_each(?))"
_READS = {condition: _READ.format(condition) for condition in (_RANGE, _LISTED)}


def columns(message: Message, now: float, time: str, limit: int) -> tuple[Any, ...] | int:
    """Returns the columns of a message, or its size if that is above the limit. `time` is `now` as
    text, because many messages share it."""
    names, quote = _names, _quote
    pairs = []
    for name, value in message.metadata.items():
        pairs.append((names.get(name) or _prefix(name)) + quote(value))
    metadata = ",".join(pairs)
    payload, key = message.payload, message.key
    size = len(metadata) + len(message.id)
    if payload:
        size += len(payload)
    elif payload is not None and payload.__class__ is not bytes:
        raise TypeError(f"its payload is {type(payload).__name__}, not bytes")
    packed_key = "null"
    if key is not None:
        size += len(key)
        packed_key = f'"{key.hex()}"'
    if size > limit:
        return size
    head = f"[{quote(message.id)},{{{metadata}}},{packed_key},{time},{size}]"
    due = now + message.delay if message.delay > 0 else 0.0
    return head, key and bytearray(key), payload and bytearray(payload), now, due, size


def _prefix(name: str) -> str:
    if len(_names) >= _MAX_NAMES:
        _names.clear()
    prefix = _names[name] = _quote(name) + ":"
    return prefix


def insert(connection: sqlite3.Connection, first: int, values: Sequence[Any]) -> None:
    """Stores messages; `values` holds COLUMNS values for each."""
    count, offset = len(values) // COLUMNS, 0
    while count:
        chunk = next(size for size in _CHUNKS if size <= count)
        connection.execute(_INSERTS[chunk], (first, *values[offset : offset + chunk * COLUMNS]))
        first += chunk
        offset += chunk * COLUMNS
        count -= chunk


def read_range(connection: sqlite3.Connection, topic: str, first: int, last: int) -> list[Delivery]:
    """Returns the messages of a range of sequences, in order, as first deliveries."""
    return _read(connection, topic, _RANGE, (first, last))


def read_listed(
    connection: sqlite3.Connection, topic: str, sequences: Sequence[int]
) -> list[Delivery]:
    """Returns the messages of these sequences, in order, as first deliveries."""
    return _read(connection, topic, _LISTED, (json.dumps(sequences),))


def _read(
    connection: sqlite3.Connection, topic: str, condition: str, values: tuple[object, ...]
) -> list[Delivery]:
    try:
        packed = connection.execute(_READS[condition], values).fetchone()
        return _deliveries(connection, topic, packed) if packed[0] is not None else []
    except UNREADABLE:
        return read_one_by_one(connection, topic, condition, values)


def _deliveries(
    connection: sqlite3.Connection, topic: str, packed: Sequence[str]
) -> list[Delivery]:
    sequences = list(map(int, packed[0].split(",")))
    heads = json.loads(packed[1])
    check(heads)
    unhex = bytes.fromhex
    deliveries = [
        Delivery(
            message=Message(
                id=id,
                topic=topic,
                payload=payload,
                key=None if key is None else unhex(key),
                metadata=metadata,
            ),
            deliveries=1,
            position=sequence & POSITION,
            time=time,
            size=size,
            receipt=sequence,
        )
        for sequence, (id, metadata, key, time, size), payload in zip(
            sequences, heads, _payloads(connection, sequences, packed[2]), strict=True
        )
    ]
    if sequences and sequences[-1] > REPLAYS:
        for delivery in deliveries:
            delivery.own_place = delivery.receipt > REPLAYS
    return deliveries


def _payloads(
    connection: sqlite3.Connection, sequences: Sequence[int], packed: str
) -> Iterable[bytes | None]:
    texts = packed.split(",")
    if "-" not in packed and "+" not in packed:
        return map(bytes.fromhex, texts)
    return [
        None
        if text == "-"
        else _large(connection, sequence)
        if text == "+"
        else bytes.fromhex(text)
        for sequence, text in zip(sequences, texts, strict=True)
    ]


def _large(connection: sqlite3.Connection, sequence: int) -> bytes:
    query = "SELECT payload FROM protoflow_messages WHERE sequence = ?"
    return bytes(connection.execute(query, (sequence,)).fetchone()[0])
