"""Dead letters: rows of their own, beside the log of their topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from protoflow.errors import DeadLetterNotFoundError, NotReplayableError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, no_group, number_of
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.members import find_group
from protoflow.transports.postgresql.publishing import publish
from protoflow.transports.postgresql.rows import Columns, read_message

_UNLIMITED = 1 << 62
_COUNT = """
SELECT count(*), coalesce(max(d.id), 0) FROM {s}.dead_letters d
JOIN {s}.topics t ON t.id = d.topic WHERE t.name = $1
"""
_NEXT = """
SELECT d.id, d.key, d.head, d.payload, d.at FROM {s}.dead_letters d
JOIN {s}.topics t ON t.id = d.topic
WHERE t.name = $1 AND d.id > $2 AND d.id <= $3 AND ($5::bytea[] IS NULL OR d.message = ANY ($5))
ORDER BY d.id LIMIT $4
"""
_LOCK = "SELECT id FROM {s}.dead_letters WHERE id = ANY ($1::int8[]) FOR UPDATE"
_DELETE = "DELETE FROM {s}.dead_letters WHERE id = ANY ($1::int8[])"
_CLEAR = """
WITH gone AS (DELETE FROM {s}.dead_letters d USING {s}.topics t
  WHERE t.id = d.topic AND t.name = $1 RETURNING d.id) SELECT count(*) FROM gone
"""
_REPLAY = """
INSERT INTO {s}.waiting (group_id, topic, bucket, due, key, head, payload, at)
VALUES ($1, $2, $3, {s}.now(), $4, $5, $6, {s}.now())
"""


class PostgresDeadLetterStore:
    """Implements `DeadLetterStore`.

    Args:
        published: gets the topics of replayed messages.

    Attributes:
        sources: whose dead letters lie where.
    """

    def __init__(self, database: Database, published: Callable[[Collection[str]], None]) -> None:
        self.sources = DeadLetterSources()
        self._database = database
        self._published = published

    async def count(self, topic: str) -> int:
        """Returns how many dead letters wait."""
        ((count, _),) = await self._database.fetch(_COUNT, topic)
        return int(count)

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[PostgresScan]:
        """Begins a scan."""
        position = min(number_of(after), (1 << 63) - 1)
        ((_, last),) = await self._database.fetch(_COUNT, topic)
        yield PostgresScan(
            self._database, self.sources, self._published, topic, (position, last), ids
        )

    async def clear(self, topic: str) -> int:
        """Removes all dead letters; groups that read the topic still get them."""
        ((count,),) = await self._database.fetch(_CLEAR, topic)
        return int(count)


class PostgresScan:
    """Implements `DeadLetterScan`."""

    def __init__(
        self,
        database: Database,
        sources: DeadLetterSources,
        published: Callable[[Collection[str]], None],
        topic: str,
        bounds: tuple[int, int],
        ids: Collection[str] | None,
    ) -> None:
        self._database = database
        self._sources = sources
        self._published = published
        self._topic = topic
        self._position, self._last = bounds
        self._ids = None if ids is None else [each.encode("utf-8", "surrogatepass") for each in ids]

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        rows = await self._database.fetch(
            _NEXT, self._topic, self._position, self._last, limit, self._ids
        )
        if rows:
            self._position = rows[-1][0]
        return [self._record(row) for row in rows]

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes and removes records in one transaction."""
        results: list[Exception | None] = [None] * len(records)
        prepared: list[tuple[int, Message, int | None]] = []
        for index, record in enumerate(records):
            try:
                prepared.append((index, *await self._address(record, to_origin)))
            except (NotReplayableError, PublishRefusedError) as error:
                results[index] = error
        topics = await self._database.topic_ids({each.topic for _, each, _ in prepared})
        async with self._database.transaction() as connection:
            numbers = [int(record.position) for record in records]
            rows = await connection.fetch(self._database.sql(_LOCK), numbers)
            there, gone = {row[0] for row in rows}, []
            for index, message, group in prepared:
                if numbers[index] not in there:
                    results[index] = DeadLetterNotFoundError("it was removed meanwhile")
                    continue
                try:
                    await self._store(connection, message, group, topics)
                    gone.append(numbers[index])
                except PublishRefusedError as error:
                    results[index] = error
            await connection.execute(self._database.sql(_DELETE), gone)
        self._published({message.topic for _, message, _ in prepared})
        return results

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records; groups that read the topic still get them."""
        await self._database.fetch(_DELETE, [int(record.position) for record in records])

    async def _address(
        self, record: DeadLetterRecord, to_origin: bool
    ) -> tuple[Message, int | None]:
        """The message to store, and the group that gets it; None is every group."""
        message, name = self._sources.replayed(record, to_origin=to_origin)
        if to_origin:
            return message, None
        group = await find_group(self._database, message.topic, name)
        if group is None:
            raise no_group(message.topic, name)
        return message, group.id

    async def _store(
        self, connection: Connection, message: Message, group: int | None, topics: dict[str, int]
    ) -> None:
        columns = Columns()
        columns.add(message, _UNLIMITED)
        if group is None:
            await publish(self._database, connection, columns, topics)
            return
        await connection.execute(
            self._database.sql(_REPLAY),
            group,
            topics[message.topic],
            columns.buckets[0],
            columns.keys[0],
            columns.heads[0],
            columns.payloads[0],
        )

    def _record(self, row: Sequence[Any]) -> DeadLetterRecord:
        id, key, head, payload, at = row
        message, _ = read_message(self._topic, id, key, head, payload)
        return DeadLetterRecord(message=message, position=str(id), time=at)
