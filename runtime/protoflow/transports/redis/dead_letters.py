"""Dead letters: the entries of the only stream of a dead-letter topic."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from protoflow.error_codes import ARGUMENT, coded
from protoflow.errors import NotReplayableError, PublishError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, no_group, replay_to_groups
from protoflow.transports.redis import names
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.publisher import RedisPublisher
from protoflow.transports.redis.records import as_record
from protoflow.transports.redis.topic_reader import last_id, page
from protoflow.transports.redis.topics import Topics

_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)


class RedisDeadLetterStore:
    """Implements `DeadLetterStore`.

    Attributes:
        sources: the subscriptions, with their dead-letter topics.
    """

    def __init__(
        self, connection: RedisConnection, topics: Topics, publisher: RedisPublisher
    ) -> None:
        self.sources = DeadLetterSources()
        self.connection = connection
        self.topics = topics
        self.publisher = publisher

    def stream(self, topic: str) -> str:
        """Returns the only stream of a dead-letter topic."""
        return names.stream(self.topics.prefix, topic, 0)

    async def count(self, topic: str) -> int:
        """Returns the number of dead letters."""
        return int(await self.connection.command("XLEN", self.stream(topic)))

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[RedisScan]:
        """Begins a scan. It reads every dead letter and ignores `ids`."""
        if after and not _POSITION.fullmatch(after):
            raise ValueError(
                coded(f"after: {after!r:.100} is not the position of a dead letter", ARGUMENT)
            )
        last = await last_id(self.connection, self.stream(topic))
        first = b"(" + after.encode() if after else b"-"
        yield RedisScan(self, topic, first, last)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters; returns their number."""
        return int(await self.connection.command("XTRIM", self.stream(topic), "MAXLEN", 0))


@dataclass(slots=True)
class RedisScan:
    """Implements `DeadLetterScan`.

    Attributes:
        store: the store of the dead letters.
        topic: the dead-letter topic.
        first: the position of the next records.
        last: the last entry when the scan began; empty if there was none.
    """

    store: RedisDeadLetterStore
    topic: str
    first: bytes
    last: bytes

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        if not self.last:
            return ()
        stream = self.store.stream(self.topic)
        entries = await page(self.store.connection, stream, self.first, self.last, limit)
        if entries:
            self.first = b"(" + entries[-1][0]
        return [as_record(DeadLetterRecord, self.topic, entry) for entry in entries]

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records, and removes those that are confirmed."""
        submit = self._submit
        return await replay_to_groups(
            records, self.store.sources, self._check_group, submit, self.remove, to_origin=to_origin
        )

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records."""
        if records:
            positions = [record.position for record in records]
            await self.store.connection.command("XDEL", self.store.stream(self.topic), *positions)

    def _submit(
        self, messages: Sequence[Message], group: str = ""
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        own_topic = self.store.topics.own_topic
        if group:
            messages = [replace(each, topic=own_topic(each.topic, group)) for each in messages]
        return self.store.publisher.submit(messages, group)

    async def _check_group(self, message: Message, group: str) -> None:
        topics = self.store.topics
        topic = topics.own_topic(message.topic, group)
        shards = await topics.find(topic)
        if shards is None:
            raise NotReplayableError(f"topic {topic!r:.100} does not exist")
        shard = names.shard_of(message, shards)
        if group not in await topics.groups(names.stream(topics.prefix, topic, shard)):
            raise no_group(message.topic, group)
