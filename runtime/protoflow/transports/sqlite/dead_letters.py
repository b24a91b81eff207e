"""Dead letters: messages of dead-letter topics, kept until they are replayed or purged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from protoflow.errors import DeadLetterNotFoundError, NotReplayableError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, no_group, number_of
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.database import Database
from protoflow.transports.sqlite.publishing import Limits, Outgoing
from protoflow.transports.sqlite.schema import BLOCKED, POSITION, REPLAYS, TOPIC_SHIFT
from protoflow.transports.sqlite.topics import Group, find_group, remove_finished

_TOPIC = "SELECT id FROM protoflow_topics WHERE name = ?"
_COUNT = "SELECT count(*), max(sequence) FROM protoflow_letters WHERE topic = ?"
_NEXT = """
SELECT sequence FROM protoflow_letters WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
{} ORDER BY sequence LIMIT ?4
"""
_NEXT_OF_ALL = _NEXT.format("")
_NEXT_OF_IDS = _NEXT.format("AND id IN (SELECT value FROM json_each(?5))")
_EXISTS = "SELECT 1 FROM protoflow_letters WHERE sequence = ?"
_DELETE = "DELETE FROM protoflow_letters WHERE sequence IN (SELECT value FROM json_each(?))"
# A replay is the last message of its lane: it waits for all that the group took before.
_REPLAY = """
INSERT INTO protoflow_deliveries (sequence, group_id, token, until, due, lane, deliveries,
  failures, first_failure)
SELECT ?1, ?2, 0, CASE WHEN EXISTS (SELECT 1 FROM protoflow_deliveries
  WHERE group_id = ?2 AND lane = ?3) THEN ?4 ELSE 0 END, 0, ?3, 0, 0, 0
"""
_UNLIMITED = Limits(rows.UNLIMITED)


class SqliteDeadLetterStore:
    """Implements `DeadLetterStore`.

    Attributes:
        sources: the subscriptions by dead-letter topic.
    """

    def __init__(self, database: Database) -> None:
        self.sources = DeadLetterSources()
        self._database = database

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        return (await self._database.worker.call(lambda c: _count(c, topic), writes=False))[1]

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[SqliteScan]:
        """Begins a scan."""
        position = min(number_of(after), POSITION)
        worker = self._database.worker
        id, _, last = await worker.call(lambda c: _count(c, topic), writes=False)
        wanted = None if ids is None else json.dumps([*ids])
        first = (id << TOPIC_SHIFT) + position
        yield SqliteScan(self._database, self.sources, topic, id, first, last, wanted)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters; groups that read the topic still get them."""
        return await self._database.worker.call(lambda c: _clear(c, topic))


@dataclass(slots=True)
class SqliteScan:
    """Implements `DeadLetterScan`.

    Attributes:
        database: the open file.
        sources: the subscriptions by dead-letter topic.
        topic: the dead-letter topic.
        id: its id.
        position: the sequence after which reading starts.
        last: the last sequence to read.
        ids: the requested message ids, as JSON; None means all.
    """

    database: Database
    sources: DeadLetterSources
    topic: str
    id: int
    position: int
    last: int
    ids: str | None

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        found = await self.database.worker.call(lambda c: self._take(c, limit), writes=False)
        if found:
            self.position = self._sequence(found[-1])
        return found

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes and removes records in one transaction."""
        touched: set[str] = set()
        results = await self.database.worker.call(
            lambda c: self._replay(c, records, to_origin, touched)
        )
        self.database.published(touched)
        return results

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records; groups that read the topic still get them."""
        sequences = [self._sequence(record) for record in records]
        await self.database.worker.call(lambda c: _remove(c, self.id, sequences))

    def _sequence(self, record: DeadLetterRecord) -> int:
        return (self.id << TOPIC_SHIFT) + int(record.position)

    def _take(self, connection: sqlite3.Connection, limit: int) -> list[DeadLetterRecord]:
        query = _NEXT_OF_ALL if self.ids is None else _NEXT_OF_IDS
        wanted = () if self.ids is None else (self.ids,)
        values = (self.id, self.position, self.last, limit, *wanted)
        sequences = [sequence for (sequence,) in connection.execute(query, values)]
        return [
            DeadLetterRecord(message=each.message, position=str(each.position), time=each.time)
            for each in rows.read_listed(connection, self.topic, sequences)
        ]

    def _replay(
        self,
        connection: sqlite3.Connection,
        records: Sequence[DeadLetterRecord],
        to_origin: bool,
        touched: set[str],
    ) -> list[Exception | None]:
        results: list[Exception | None] = []
        for record in records:
            error: Exception | None = None
            try:
                message, group = self._address(connection, record, to_origin)
                _store(connection, message, group, record.time)
                touched.add(message.topic)
            except (DeadLetterNotFoundError, NotReplayableError, PublishRefusedError) as failure:
                error = failure
            results.append(error)
        replayed = [
            self._sequence(record)
            for record, error in zip(records, results, strict=True)
            if error is None
        ]
        _remove(connection, self.id, replayed)
        return results

    def _address(
        self, connection: sqlite3.Connection, record: DeadLetterRecord, to_origin: bool
    ) -> tuple[Message, Group | None]:
        """Returns the message to store, and the group that gets it; None means every group."""
        if connection.execute(_EXISTS, (self._sequence(record),)).fetchone() is None:
            raise DeadLetterNotFoundError("it was removed meanwhile")
        message, name = self.sources.replayed(record, to_origin=to_origin)
        if to_origin:
            return message, None
        group = find_group(connection, message.topic, name)
        if group is None:
            raise no_group(message.topic, name)
        return message, group


def _count(connection: sqlite3.Connection, topic: str) -> tuple[int, int, int]:
    """Returns the id of a topic, its number of dead letters, and the last sequence."""
    id = _topic_id(connection, topic)
    count, last = connection.execute(_COUNT, (id,)).fetchone()
    return id, count, last or 0


def _clear(connection: sqlite3.Connection, topic: str) -> int:
    id = _topic_id(connection, topic)
    count = connection.execute("DELETE FROM protoflow_letters WHERE topic = ?", (id,)).rowcount
    remove_finished(connection, id)
    return count


def _remove(connection: sqlite3.Connection, topic: int, sequences: Sequence[int]) -> None:
    connection.execute(_DELETE, (json.dumps(sequences),))
    remove_finished(connection, topic)


def _topic_id(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(_TOPIC, (name,)).fetchone()
    return int(row[0]) if row else 0


def _store(
    connection: sqlite3.Connection, message: Message, group: Group | None, now: float
) -> None:
    outgoing = Outgoing()
    if refused := outgoing.add((message,), now, _UNLIMITED):
        raise refused[0]
    if group is None:
        outgoing.write(connection)
        return
    query = "SELECT max(sequence) FROM protoflow_messages WHERE sequence > ?"
    (last,) = connection.execute(query, (REPLAYS,)).fetchone()
    sequence = (last or REPLAYS) + 1
    rows.insert(connection, sequence, outgoing.topics[message.topic])
    connection.execute(_REPLAY, (sequence, group.id, group.lane(message.key), BLOCKED))
