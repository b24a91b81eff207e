"""Rows that another program wrote or damaged: such a row never blocks its neighbours.

Many rows are read at once. If that fails, each row is read separately. An unreadable row is handed
out as unreadable, with its stored payload.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from protoflow.message import Delivery, Message
from protoflow.transports.sqlite.schema import POSITION

#: The errors of reading rows that this transport did not write; SQLite raises OperationalError for
#: text that is not UTF-8.
UNREADABLE: Final = (ValueError, TypeError, RecursionError, sqlite3.OperationalError)

_EACH: Final = """
SELECT sequence, CAST(head AS BLOB), CAST(key AS BLOB), CAST(payload AS BLOB)
FROM protoflow_messages WHERE {} ORDER BY sequence
"""
#: No message has more.
_MOST_BYTES: Final = 1 << 32
#: Later times are mistakes (the limit is the year 5138).
_LAST: Final = 1e11


def check(heads: Iterable[Any]) -> None:
    """Raises ValueError or TypeError if a head does not have the form of `rows.columns`."""
    for id, metadata, key, time, size in heads:
        if (
            id.__class__ is not str
            or metadata.__class__ is not dict
            or not (key is None or key.__class__ is str)
            or not (size.__class__ is int and 0 <= size < _MOST_BYTES)
            or not (time.__class__ is float or time.__class__ is int)
            or not 0 <= time < _LAST
        ):
            raise ValueError("the head has other fields")
        "".join(metadata.values())  # the values must be strings


def read_one_by_one(
    connection: sqlite3.Connection, topic: str, where: str, values: tuple[object, ...]
) -> list[Delivery]:
    """Returns the messages of a condition in order; each is read separately."""
    query = _EACH.format(where)
    return [_delivery(topic, *row) for row in connection.execute(query, values).fetchall()]


def _delivery(
    topic: str, sequence: int, head: bytes, key: bytes | None, payload: bytes | None
) -> Delivery:
    position = sequence & POSITION
    unreadable = None
    try:
        decoded = json.loads(head)
        check([decoded])
        id, metadata, head_key, time, size = decoded
        key = None if head_key is None else bytes.fromhex(head_key)
    except UNREADABLE as error:
        unreadable = f"row {sequence}: its head cannot be read ({type(error).__name__})"
        id, metadata, time = f"{topic}/{position}", {}, 0.0
        size = len(payload or b"") + len(key or b"")
    return Delivery(
        message=Message(id=id, topic=topic, payload=payload, key=key, metadata=metadata),
        deliveries=1,
        position=position,
        time=time,
        size=size,
        receipt=sequence,
        unreadable=unreadable,
    )
