"""Finding one message: topics are read by the time in its id on, groups by their journals."""

from __future__ import annotations

import contextlib
import math
import os

from protoflow.counted import counted
from protoflow.errors import TransportError
from protoflow.transport.lag import Lag
from protoflow.transport.message_finder import NO_TIME, FoundMessages, GroupState, MessageQuery
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.file.journal import Journal
from protoflow.transports.file.records import Record
from protoflow.transports.file.topics import Topics

#: Clocks of processes may differ by this much, in seconds.
_SKEW = 5.0


def find_message(topics: Topics, query: MessageQuery, now: float) -> FoundMessages:
    """See `MessageFinder.find_message`."""
    found = FoundMessages()
    for topic in query.topics:
        if query.since is None:
            found.not_searched.append(f"{topic}: {NO_TIME}")
        elif not topics.exists(topic):
            found.not_searched.append(f"{topic}: there is no such topic")
        else:
            mine = _search(topics, topic, query, query.since, found)
            for settings in query.subscriptions:
                if settings.topic == topic and not settings.broadcast:
                    _judge(topics, settings, mine, found, now)
    return found


def read_lag(topics: Topics, topic: str, group: str, now: float) -> Lag:
    """See `LagReader.lag`."""
    with contextlib.closing(topics.reader(topic)) as reader:
        state = Journal(topics.group(topic, group)).read()
        messages = len(state.entries) + reader.count(state.cursor, state.sequence)
        oldest = reader.time_from(state.low) if messages else math.inf
    seconds = max(0.0, now - oldest) if oldest < math.inf else None
    return Lag(messages=messages, seconds=seconds)


def _search(
    topics: Topics, topic: str, query: MessageQuery, since: float, found: FoundMessages
) -> list[Record]:
    """Returns the records that are the message; also adds what it has caused."""
    mine: list[Record] = []
    count = 0
    with contextlib.closing(topics.reader(topic)) as reader:
        position = reader.at_time(since - _SKEW)
        while count <= query.limit and (read := reader.read(position)):
            position = read[-1].end
            messages = [each for each in read if not each.is_marker]
            count += len(messages)
            for record in messages:
                as_record = record.as_topic_record(TopicRecord, topic)
                if found.add(as_record, topic, query, group=record.group or ""):
                    mine.append(record)
            if read[-1].time > since + query.within:
                break
    found.add_place(topic, count, query)
    return mine


def _judge(
    topics: Topics,
    settings: SubscriptionSettings,
    mine: list[Record],
    found: FoundMessages,
    now: float,
) -> None:
    """Adds how far a group is with the message."""
    path = topics.group(settings.topic, settings.group)
    try:
        state = Journal(path).read()
    except (TransportError, OSError) as error:
        found.not_searched.append(f"journal of group {settings.group}: {error}")
        return
    found.searched.append(f"journal of group {settings.group} ({os.path.basename(path)})")
    for record in mine:
        if record.group not in (None, settings.group):
            continue
        entry = state.entries.get(record.position)
        if entry is None:
            text = "settled" if record.position < state.cursor else "waiting"
        elif entry.claim:
            text = f"in flight, delivered {counted(entry.deliveries, 'time')}"
        elif entry.due > now:
            text = f"waiting for {entry.due - now:.0f} s more"
        else:
            text = "waiting"
        found.groups.append(GroupState(topic=settings.topic, group=settings.group, state=text))
