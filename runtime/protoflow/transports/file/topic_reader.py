"""Reading a topic without joining a group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.errors import TransportError
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.file.context import FileContext
from protoflow.transports.file.log_reader import LogReader
from protoflow.transports.file.topics import Topics


async def read_topic(
    context: FileContext, topics: Topics, topic: str, start: Start | float, *, follow: bool
) -> AsyncIterator[TopicRecord]:
    """See `TopicReader.read_topic`; replays to one group are left out. Of a damaged part, the bytes
    are the payload of a record without time."""
    reader = await context.consume(topics.reader, topic)
    try:
        position = await context.consume(_begin, reader, start)
        end = await context.consume(reader.end)
        while follow or position < end:  # what is published meanwhile is not read
            found = await context.consume(reader.read, position)
            for record in found:
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


def _begin(reader: LogReader, start: Start | float) -> int:
    if start is Start.EARLIEST:
        return reader.first()
    return reader.end() if start is Start.LATEST else reader.at_time(start)
