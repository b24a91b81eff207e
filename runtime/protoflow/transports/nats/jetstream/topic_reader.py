"""Reading a topic's stream by sequence: no consumer is made."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.errors import TopologyError
from protoflow.message import Message
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.wire import headers
from protoflow.transports.nats.wire.connection import NatsConnection

_INTERVAL = 0.2


class JetStreamTopicReader:
    """Reads topics. The stream keeps messages whether they are handled or not."""

    def __init__(self, connection: NatsConnection, api: API, names: JetStreamNames) -> None:
        self._connection = connection
        self._api = api
        self._names = names

    async def read(
        self, topic: str, start: Start | float, follow: bool
    ) -> AsyncIterator[TopicRecord]:
        """Yields the messages of a topic; see `TopicReader`."""
        stream, subject = self._names.stream(topic), self._names.all_of(topic)
        info = await self._api.stream(self._connection.client, stream)
        if info is None:
            raise TopologyError(f"stream {stream} of topic {topic} is missing")
        first, last = info["state"]["first_seq"], info["state"]["last_seq"]
        sequence = last + 1 if start is Start.LATEST else first
        if isinstance(start, float):
            sequence = await self._at(stream, subject, start, first, last)
        while True:
            stored = await self._api.next_message(
                self._connection.client, stream, sequence, subject
            )
            if stored is not None:
                sequence = stored["seq"] + 1
                yield _record(topic, stored)
            elif not follow:
                return
            else:
                await asyncio.sleep(_INTERVAL)

    async def _at(self, stream: str, subject: str, time: float, first: int, last: int) -> int:
        """The sequence of the first message at or after a time, by halves."""
        while first <= last:
            middle = (first + last) // 2
            stored = await self._api.next_message(self._connection.client, stream, middle, subject)
            if stored is None or _seconds(stored["time"]) >= time:
                last = middle - 1
            else:
                first = stored["seq"] + 1
        return first


def _record(topic: str, stored: JSON) -> TopicRecord:
    payload = base64.b64decode(stored.get("data", ""))
    try:
        message = headers.decode(topic, payload, base64.b64decode(stored.get("hdrs", "")))
    except Exception:  # one message that cannot be read does not hide the others
        message = Message(id="", topic=topic, payload=payload)
    return TopicRecord(message=message, position=str(stored["seq"]), time=_seconds(stored["time"]))


def _seconds(text: str) -> float:
    """Seconds since the epoch of `2026-01-02T03:04:05.123456789Z`."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    return moment.timestamp() + float(f"0.{fraction or 0}")
