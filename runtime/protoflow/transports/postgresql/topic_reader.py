"""Reading a topic as the log keeps it, whatever groups have settled."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.errors import TopologyError
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.postgresql import positions
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.rows import read_message
from protoflow.transports.postgresql.schema import BUCKETS

_PAGE = 20
_ALL = [*range(BUCKETS)]


async def read_topic(
    database: Database, topic: str, start: Start | float, follow: bool
) -> AsyncIterator[TopicRecord]:
    """Yields the messages of a topic; see `TopicReader`."""
    rows = await database.fetch("SELECT id FROM {s}.topics WHERE name = $1", topic)
    if not rows:
        raise TopologyError(f"topic {topic} is missing")
    number = rows[0][0]
    place = positions.START
    if start is Start.LATEST:
        place = positions.end(await positions.open_batch(database))
    while True:
        opening = await positions.open_batch(database)
        place = positions.next_batch(place, opening)
        async for record in _batch(database, topic, number, place):
            if not isinstance(start, float) or record.time >= start:
                yield record
        if not follow:
            return
        seen: positions.Seen | None = positions.Seen(opening.upto, opening.open)
        while seen is not None:
            await asyncio.sleep(database.options.poll_interval)  # the server sends no notice
            seen = await positions.look_again(database, number, _ALL, seen)


async def _batch(
    database: Database, topic: str, number: int, place: positions.Position
) -> AsyncIterator[TopicRecord]:
    """The messages of a batch, in the order of their numbers."""
    readers = [_bucket(database, topic, number, bucket, place) for bucket in range(BUCKETS)]
    pages = []
    for index, reader in enumerate(readers):
        record = await anext(reader, None)
        if record is not None:
            pages.append((int(record.position), index, record))
    heapq.heapify(pages)
    while pages:
        _, index, record = heapq.heappop(pages)
        yield record
        following = await anext(readers[index], None)
        if following is not None:
            heapq.heappush(pages, (int(following.position), index, following))


async def _bucket(
    database: Database, topic: str, number: int, bucket: int, place: positions.Position
) -> AsyncIterator[TopicRecord]:
    seq = place.seq
    while True:
        rows = await database.fetch(
            positions.READ,
            number,
            [bucket],
            [place.base],
            [place.open],
            [place.low],
            [place.high],
            [seq],
            _PAGE,
        )
        for _, seq, _, key, head, payload, at in rows:
            message, _ = read_message(topic, seq, key, head, payload)
            yield TopicRecord(message=message, position=str(seq), time=at)
        if len(rows) < _PAGE:
            return
