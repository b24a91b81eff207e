"""Reads a topic's rows: first messages that a group has not settled, and then new ones.

A row is deleted when its last group has settled it, so a reader may miss messages that are handled
between two checks.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import AsyncIterator, Sequence

from protoflow.contract.spec import Start
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.message import Delivery
from protoflow.transport.topic_reader import Point, TopicRecord, is_within, number_of
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.schema import POSITION, TOPIC_SHIFT
from protoflow.transports.sqlite.worker import Worker

_INTERVAL = 0.1
_CHUNK = 100
_TOPIC = "SELECT id, next FROM protoflow_topics WHERE name = ?"
_NEXT = """
SELECT sequence FROM protoflow_messages WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?
"""


async def read_topic(
    worker: Worker,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """Yields the messages of a topic; see `TopicReader`."""
    found = await worker.call(
        lambda connection: connection.execute(_TOPIC, (topic,)).fetchone(), writes=False
    )
    if found is None:
        raise TopologyError(f"topic {topic} is missing", code=TOPOLOGY_MISSING)
    number, upcoming = found
    base = number << TOPIC_SHIFT
    sequence = base + (upcoming if start is Start.LATEST else _position(start, 0))
    last = base + (POSITION if follow else min(upcoming, _position(end, upcoming)) - 1)
    while True:
        page = await worker.call(
            functools.partial(_page, topic=topic, first=sequence, last=last),
            writes=False,
        )
        for delivery in page:
            sequence = base + int(delivery.position) + 1
            if is_within(delivery.time, start, end):
                yield TopicRecord(
                    message=delivery.message, position=str(delivery.position), time=delivery.time
                )
        if not page:
            if not follow:
                return
            await asyncio.sleep(_INTERVAL)


def _position(point: Start | Point | None, otherwise: int) -> int:
    if isinstance(point, Start) or not isinstance(point, str):
        return otherwise
    return min(number_of(point), POSITION)


def _page(connection: sqlite3.Connection, topic: str, first: int, last: int) -> Sequence[Delivery]:
    sequences = [row[0] for row in connection.execute(_NEXT, (first, last, _CHUNK))]
    return rows.read_listed(connection, topic, sequences) if sequences else ()
