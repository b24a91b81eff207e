"""Reading a topic without joining a group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.errors import ConfigError, TransportError
from protoflow.transport.topic_reader import Point, TopicRecord, number_of
from protoflow.transports.file.context import FileContext
from protoflow.transports.file.log_reader import LogReader
from protoflow.transports.file.topics import Topics


async def read_topic(
    context: FileContext,
    topics: Topics,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """See `TopicReader.read_topic`; replays to one group are left out. Of a damaged part, the bytes
    are the payload of a record without time."""
    reader = await context.consume(topics.reader, topic)
    try:
        position = await context.consume(_begin, reader, start)
        last = await context.consume(_end, reader, end)
        while follow or position < last:  # what is published meanwhile is not read
            found = await context.consume(reader.read, position)
            for record in found:
                if not follow and record.position >= last:
                    return
                position = record.end
                if record.group is None and not record.is_marker:
                    yield record.as_topic_record(TopicRecord, topic)
            if not found and not follow:
                return
            if not found:
                await asyncio.sleep(context.options.poll_interval)
    finally:
        with contextlib.suppress(TransportError):  # the transport is closed
            await asyncio.shield(context.consume(reader.close))


def _begin(reader: LogReader, start: Start | Point) -> int:
    if start is Start.EARLIEST:
        return reader.first()
    return reader.end() if start is Start.LATEST else _at(reader, start)


def _end(reader: LogReader, end: Point | None) -> int:
    return reader.end() if end is None else min(reader.end(), _at(reader, end))


def _at(reader: LogReader, place: Point) -> int:
    if not isinstance(place, str):
        return reader.at_time(place)
    position = number_of(place)
    if reader.first() < position < reader.end() and reader.previous(position) is None:
        raise ConfigError(f"position {place}: no message of the topic begins there")
    return max(position, reader.first())
