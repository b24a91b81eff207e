"""Reading a topic's stream by sequence: no consumer is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from protoflow.contract.spec import Start
from protoflow.errors import TopologyError
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.jetstream.stored_messages import message_of, sequence_at, time_of
from protoflow.transports.nats.names import JetStreamNames
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
            client = self._connection.client
            sequence = await sequence_at(self._api, client, stream, subject, start, (first, last))
        while True:
            stored = await self._api.next_message(
                self._connection.client, stream, sequence, subject
            )
            if stored is not None:
                sequence = stored["seq"] + 1
                yield _record(topic, stream, stored)
            elif not follow:
                return
            else:
                await asyncio.sleep(_INTERVAL)


def _record(topic: str, stream: str, stored: JSON) -> TopicRecord:
    return TopicRecord(
        message=message_of(topic, stream, stored),
        position=str(stored["seq"]),
        time=time_of(stored),
    )
