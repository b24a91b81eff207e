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
            continue
        if streams := await _streams(topics, topic, query):
            for stream in streams:
                entries = await _search(connection, topics, query, topic, stream, found)
                for position, fields in entries:
                    await _judge(connection, topics, query, topic, stream, position, fields, found)
        else:
            found.not_searched.append(f"topic {topic} does not exist")
    return found


async def _streams(topics: Topics, topic: str, query: MessageQuery) -> list[str]:
    """Returns the streams of a topic; of a source, also those of its groups' retries."""
    found = [] if topics.is_own(topic) else await topics.streams(topic)
    groups = [each.group for each in query.subscriptions if each.topic == topic]
    own = [topics.own_topic(topic, group) for group in groups]
    for each in dict.fromkeys((topic,) if topics.is_own(topic) else own):
        if await topics.find(each) is not None:
            found += await topics.streams(each)
    return found


async def _search(
    connection: RedisConnection,
    topics: Topics,
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
            (entry[0], entry[1])
            for entry in entries
            if _sees(topics, query, topic, stream, entry, found)
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
    topics: Topics,
    query: MessageQuery,
    topic: str,
    stream: str,
    entry: list[Any],
    found: FoundMessages,
) -> bool:
    """Returns whether an entry is the message; notes it, and the messages that it caused."""
    record = as_record(TopicRecord, topic, entry, own=not topics.is_source(stream, topic))
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
        group = topics.group_at(stream, topic, settings.group)
        info = groups.get(group)
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
        if not topics.is_own(topic):  # a retry has left the source, where it is settled
            found.groups[:] = [
                each for each in found.groups if (each.topic, each.group) != (topic, settings.group)
            ]
        found.groups.append(GroupState(topic=topic, group=settings.group, state=state))
