"""Reading a topic as the log keeps it, whatever groups have settled."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.transport.topic_reader import Point, TopicRecord, is_within, number_of
from protoflow.transports.postgresql import positions
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.rows import read_message
from protoflow.transports.postgresql.schema import BUCKETS

_PAGE = 20
_LARGEST = (1 << 63) - 1
_ALL = [*range(BUCKETS)]


async def read_topic(
    database: Database,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """Yields the messages of a topic; see `TopicReader`."""
    rows = await database.fetch("SELECT id FROM {s}.topics WHERE name = $1", topic)
    if not rows:
        raise TopologyError(f"topic {topic} is missing", code=TOPOLOGY_MISSING)
    number = rows[0][0]
    place = positions.START
    if start is Start.LATEST:
        place = positions.end(await positions.open_batch(database))
    first = _number(start, 0)
    last = _number(end, _LARGEST)
    while True:
        opening = await positions.open_batch(database)
        place = positions.next_batch(place, opening)._replace(seq=max(0, first - 1))
        async for record in _batch(database, topic, number, place):
            if int(record.position) >= last:
                break
            if is_within(record.time, start, end):
                yield record
        if not follow:
            return
        seen: positions.Seen | None = positions.Seen(opening.upto, opening.open)
        while seen is not None:
            await asyncio.sleep(database.options.poll_interval)  # the server sends no notice
            seen = await positions.look_again(database, number, _ALL, seen)


def _number(point: Start | Point | None, otherwise: int) -> int:
    if isinstance(point, Start) or not isinstance(point, str):
        return otherwise
    return min(number_of(point), _LARGEST)


async def _batch(
    database: Database, topic: str, number: int, place: positions.Position
) -> AsyncIterator[TopicRecord]:
    """The messages of a batch, in the order of their numbers."""
    first = await _read(database, topic, number, place, dict.fromkeys(_ALL, place.seq))
    readers = [
        _bucket(database, topic, number, place, (bucket, page)) for bucket, page in first.items()
    ]
    pages = []
    for index, reader in enumerate(readers):
        record = await anext(reader)
        pages.append((int(record.position), index, record))
    heapq.heapify(pages)
    while pages:
        _, index, record = heapq.heappop(pages)
        yield record
        following = await anext(readers[index], None)
        if following is not None:
            heapq.heappush(pages, (int(following.position), index, following))


async def _bucket(
    database: Database,
    topic: str,
    number: int,
    place: positions.Position,
    first: tuple[int, list[TopicRecord]],
) -> AsyncIterator[TopicRecord]:
    """The messages of a bucket, of which the first page is read."""
    bucket, page = first
    while True:
        for record in page:
            yield record
        if len(page) < _PAGE:
            return
        last = int(page[-1].position)
        page = (await _read(database, topic, number, place, {bucket: last})).get(bucket, [])


async def _read(
    database: Database, topic: str, number: int, place: positions.Position, seqs: dict[int, int]
) -> dict[int, list[TopicRecord]]:
    """A page of each bucket, behind its number; buckets without one are left out."""
    size = len(seqs)
    rows = await database.fetch(
        positions.READ,
        number,
        [*seqs],
        [place.base] * size,
        [place.open] * size,
        [place.low] * size,
        [place.high] * size,
        [*seqs.values()],
        _PAGE,
    )
    pages: dict[int, list[TopicRecord]] = {}
    for bucket, seq, _, key, head, payload, at in rows:
        message, _ = read_message(topic, seq, key, head, payload)
        record = TopicRecord(message=message, position=str(seq), time=at)
        pages.setdefault(bucket, []).append(record)
    return pages
