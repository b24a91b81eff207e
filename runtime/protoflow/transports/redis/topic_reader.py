"""Reads a topic without joining a group."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from protoflow.contract.spec import Start
from protoflow.transport.topic_reader import Point, TopicRecord, number_of
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.records import as_record, group_of
from protoflow.transports.redis.topics import Topics

_PAGE: Final = 100
_FOLLOW: Final = 0.1


async def read_topic(
    connection: RedisConnection,
    topics: Topics,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """See `TopicReader.read_topic`. Replays and fully settled messages are not yielded."""
    places = {
        stream: await _begin(connection, stream, start) for stream in await topics.streams(topic)
    }
    own = topics.is_own(topic)
    lasts = dict.fromkeys(places, b"+")
    if not follow:  # messages that arrive after this are not read
        lasts = {stream: await _end(connection, stream, end) for stream in places}
    while True:
        pages = {
            stream: await page(connection, stream, place, lasts[stream])
            for stream, place in places.items()
        }
        # Entries after the earliest end of a full page must wait, to keep the order of all streams.
        ends = [found[-1][0] for found in pages.values() if len(found) == _PAGE]
        upto = min(map(order, ends)) if ends else None
        merged = heapq.merge(*(_upto(found, stream, upto) for stream, found in pages.items()))
        for _, stream, entry in merged:
            places[stream] = b"(" + entry[0]
            if group_of(entry[1]) is None:
                yield as_record(TopicRecord, topic, entry, own=own)
        if not ends and not follow:
            return
        if not ends:
            await asyncio.sleep(_FOLLOW)


async def page(
    connection: RedisConnection, stream: str, first: bytes, last: bytes = b"+", count: int = _PAGE
) -> list[Any]:
    """Returns the next entries of a stream."""
    found: list[Any] = await connection.command("XRANGE", stream, first, last, "COUNT", count)
    return found


async def last_id(connection: RedisConnection, stream: str) -> bytes:
    """Returns the id of the last entry of a stream; empty if it has none."""
    found = await connection.command("XREVRANGE", stream, "+", "-", "COUNT", 1)
    id: bytes = found[0][0] if found else b""
    return id


def order(id: bytes) -> tuple[int, int]:
    """Returns the sort key of an entry's id."""
    ms, _, sequence = id.partition(b"-")
    return int(ms), int(sequence)


def _upto(
    entries: Iterable[Any], stream: str, end: tuple[int, int] | None
) -> Iterable[tuple[tuple[int, int], str, Any]]:
    for entry in entries:
        place = order(entry[0])
        if end is None or place <= end:
            yield place, stream, entry


async def _begin(connection: RedisConnection, stream: str, start: Start | Point) -> bytes:
    if start is Start.EARLIEST:
        return b"-"
    if start is Start.LATEST:
        newest = await last_id(connection, stream)
        return b"(" + newest if newest else b"-"
    return _id_at(start)


async def _end(connection: RedisConnection, stream: str, end: Point | None) -> bytes:
    last = await last_id(connection, stream) or b"0-0"
    if end is None or order(last) < order(before := _id_at(end)):
        return last
    # Redis refuses a range that ends before its first id; there is no entry with this id.
    return b"(" + before if order(before) > (0, 0) else b"0-0"


def _id_at(place: Point) -> bytes:
    """Returns the id of the first entry at a place."""
    if not isinstance(place, str):
        return b"%d-0" % max(0, round(place * 1000))
    ms, _, sequence = place.partition("-")
    return b"%d-%d" % (number_of(ms), number_of(sequence or "0"))
