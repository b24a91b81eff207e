"""Finds a message by its id: reads streams from the time that the id contains."""

from __future__ import annotations

from typing import Any, Final

from protoflow import wire
from protoflow.counted import counted
from protoflow.transport.message_finder import (
    NO_TIME,
    FoundMessages,
    GroupState,
    MessageQuery,
    Sighting,
)
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.redis import names
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.records import as_record, group_of
from protoflow.transports.redis.topic_reader import order, page
from protoflow.transports.redis.topics import Topics

_PAGE: Final = 1000
#: Seconds by which the clocks of clients and server may differ.
_SKEW: Final = 5.0


async def find_message(
    connection: RedisConnection, topics: Topics, query: MessageQuery
) -> FoundMessages:
    """See `MessageFinder`. A message is deleted after every group has settled it."""
    found = FoundMessages()
    for topic in query.topics:
        if query.since is None:
            found.not_searched.append(f"{topic}: {NO_TIME}")
        elif await topics.find(topic) is None:
            found.not_searched.append(f"topic {topic} does not exist")
        else:
            for stream in await topics.streams(topic):
                for position, fields in await _search(connection, query, topic, stream, found):
                    await _judge(connection, topics, query, topic, stream, position, fields, found)
    return found


async def _search(
    connection: RedisConnection,
    query: MessageQuery,
    topic: str,
    stream: str,
    found: FoundMessages,
) -> list[tuple[bytes, list[bytes]]]:
    """Notes the message and the messages that it caused; returns the entries of the message."""
    since = query.since or 0.0
    first = b"%d" % max(0, round((since - _SKEW) * 1000))
    last = b"%d" % round((since + query.within) * 1000)
    mine, read = list[tuple[bytes, list[bytes]]](), 0
    while read < query.limit:
        entries = await page(connection, stream, first, last, min(_PAGE, query.limit - read))
        mine += [
            (entry[0], entry[1]) for entry in entries if _sees(query, topic, stream, entry, found)
        ]
        read += len(entries)
        if len(entries) < _PAGE:
            break
        first = b"(" + entries[-1][0]
    if read >= query.limit:
        found.not_searched.append(
            f"stream {stream}: behind the first {query.limit} messages; raise scan-limit or set"
            " since"
        )
    else:
        found.searched.append(f"stream {stream} ({counted(read, 'message')})")
    return mine


def _sees(
    query: MessageQuery, topic: str, stream: str, entry: list[Any], found: FoundMessages
) -> bool:
    """Returns whether an entry is the message; notes it, and the messages that it caused."""
    record = as_record(TopicRecord, topic, entry)
    is_caused = record.message.metadata.get(wire.CAUSATION_ID) == query.id
    if record.message.id != query.id and not is_caused:
        return False
    sighting = Sighting(
        message=record.message,
        topic=f"stream {stream}",
        position=record.position,
        time=record.time,
        group=group_of(entry[1]) or "",
    )
    (found.caused if record.message.id != query.id else found.sightings).append(sighting)
    return record.message.id == query.id


async def _judge(
    connection: RedisConnection,
    topics: Topics,
    query: MessageQuery,
    topic: str,
    stream: str,
    position: bytes,
    fields: list[bytes],
    found: FoundMessages,
) -> None:
    """Notes the progress of each group with an entry."""
    groups, only = await topics.groups(stream), group_of(fields)
    for settings in query.subscriptions:
        if settings.topic != topic or settings.broadcast or only not in (None, settings.group):
            continue
        group, info = settings.group, groups.get(settings.group)
        if info is None:
            state = "the group does not exist"
        elif order(info["last-delivered-id"]) < order(position):
            state = "waiting"
        elif held := await connection.command("XPENDING", stream, group, position, position, 1):
            state = f"in flight at {held[0][1].decode()}, delivered {counted(held[0][3], 'time')}"
        elif due := await connection.command("ZSCORE", names.waiting(stream, group), position):
            late = float(due) / 1000 - connection.settings.clock.now()
            state = "waiting" if late <= 0 else f"waiting for {late:.0f} s more"
        else:
            state = "settled"
        found.groups.append(GroupState(topic=topic, group=group, state=state))
