"""Reading a topic's stream by sequence: no consumer is made."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import AsyncIterator
from typing import TypeVar

from protoflow.contract.spec import Start
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.topic_reader import Point, TopicRecord, number_of
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.wire import headers

R = TypeVar("R", TopicRecord, DeadLetterRecord)
_INTERVAL = 0.2


async def read_topic(
    api: API,
    names: JetStreamNames,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """Yields the messages of a topic; see `TopicReader`. The stream keeps them, handled or not."""
    stream, subject = names.stream(topic), names.all_of(topic)
    info = await api.stream(stream)
    if info is None:
        raise TopologyError(f"stream {stream} of topic {topic} is missing", code=TOPOLOGY_MISSING)
    first, last = info["state"]["first_seq"], info["state"]["last_seq"]

    async def sequence_of(place: Point) -> int:
        if isinstance(place, str):
            return number_of(place)
        return await sequence_at(api, stream, subject, place, (first, last))

    sequence = last + 1 if start is Start.LATEST else first
    if not isinstance(start, Start):
        sequence = max(first, await sequence_of(start))
    if end is not None:
        last = min(last, await sequence_of(end) - 1)
    while follow or sequence <= last:
        stored = await api.next_message(stream, sequence, subject)
        if not follow and (stored is None or stored["seq"] > last):
            return  # messages that arrived meanwhile are not read
        if stored is None:
            await asyncio.sleep(_INTERVAL)
            continue
        sequence = stored["seq"] + 1
        yield as_record(TopicRecord, topic, stream, stored)


async def sequence_at(
    api: API, stream: str, filter: str, time: float, bounds: tuple[int, int]
) -> int:
    """Returns the sequence of the first message at or after a time, by binary search."""
    first, last = bounds
    while first <= last:
        middle = (first + last) // 2
        stored = await api.next_message(stream, middle, filter)
        if stored is None or time_of(stored) >= time:
            last = middle - 1
        else:
            first = stored["seq"] + 1
    return first


def as_record(kind: type[R], topic: str, stream: str, stored: JSON) -> R:
    """Returns a stored message as a record of a topic or of its dead letters. If its headers cannot
    be read, the message contains only the payload."""
    payload = base64.b64decode(stored.get("data", ""))
    try:
        message = headers.decode(topic, payload, base64.b64decode(stored.get("hdrs", "")))
    except Exception:  # an unreadable message must not hide the others
        message = Message(id="", topic=topic, payload=payload)
    message.id = message.id or f"{stream}:{stored['seq']}"
    return kind(message=message, position=str(stored["seq"]), time=time_of(stored))


def time_of(stored: JSON) -> float:
    """Returns the time of storing, in seconds since the epoch; 0.0 if unknown.

    The form is `2026-01-02T03:04:05.123456789Z`.
    """
    whole, _, fraction = str(stored.get("time", "")).removesuffix("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0.0
    return moment.timestamp() + float(f"0.{fraction or 0}")
