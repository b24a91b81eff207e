"""Dead letters: messages of dead-letter topics, kept until they are replayed or purged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError, TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetter
from protoflow.transport.kit.replay import replayed
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.publishing import Limits, Outgoing
from protoflow.transports.sqlite.schema import BLOCKED, REPLAYS
from protoflow.transports.sqlite.topics import Group, find_group, remove_finished
from protoflow.transports.sqlite.worker import Worker

_TOPIC = "SELECT id FROM protoflow_topics WHERE name = ?"
_OLDEST = "SELECT sequence FROM protoflow_letters WHERE topic = ? ORDER BY sequence LIMIT ?"
_BY_ID = """
SELECT sequence, id FROM protoflow_letters
WHERE topic = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY sequence
"""
# A replay is the last of its lane: it waits for all that the group took before.
_REPLAY = """
INSERT INTO protoflow_deliveries (sequence, group_id, token, until, due, lane, deliveries,
  failures, first_failure)
SELECT ?1, ?2, 0, CASE WHEN EXISTS (SELECT 1 FROM protoflow_deliveries
  WHERE group_id = ?2 AND lane = ?3) THEN ?4 ELSE 0 END, 0, ?3, 0, 0, 0
"""
_UNLIMITED = Limits(rows.UNLIMITED)
#: How many letters are in memory at once when all are replayed.
_BATCH = 100


class SqliteDeadLetters:
    """Counts, lists, replays and purges what lies in dead-letter topics."""

    worker: Worker

    async def count_dead_letters(self, topic: str) -> int:
        """How many letters wait."""
        return await self.worker.call(lambda connection: count(connection, topic), writes=False)

    async def list_dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest letters first."""
        return await self.worker.call(
            lambda connection: read(connection, topic, oldest(connection, topic, limit)),
            writes=False,
        )

    async def show_dead_letter(self, topic: str, id: str) -> DeadLetter:
        """One letter."""
        letters = await self.worker.call(
            lambda connection: read(connection, topic, find(connection, topic, (id,))),
            writes=False,
        )
        return letters[0]

    async def replay_dead_letters(
        self, topic: str, ids: Collection[str] | None = None, *, to_origin: bool = False
    ) -> int:
        """Gives letters back to their groups, or to their original topics."""
        touched: set[str] = set()
        count = await self.worker.call(
            lambda connection: replay(connection, topic, ids, to_origin, touched)
        )
        self.published(touched)
        return count

    async def purge_dead_letters(self, topic: str, ids: Collection[str] | None = None) -> int:
        """Deletes letters; groups that read the topic still get them."""
        return await self.worker.call(lambda connection: purge(connection, topic, ids))

    def published(self, names: Collection[str]) -> None:
        """Wakes the subscriptions of topics."""
        raise NotImplementedError


def count(connection: sqlite3.Connection, topic: str) -> int:
    """How many letters a topic has."""
    query = "SELECT count(*) FROM protoflow_letters WHERE topic = ?"
    return int(connection.execute(query, (_topic_id(connection, topic),)).fetchone()[0])


def oldest(connection: sqlite3.Connection, topic: str, limit: int) -> list[int]:
    """The sequences of the oldest letters."""
    found = connection.execute(_OLDEST, (_topic_id(connection, topic), limit)).fetchall()
    return [sequence for (sequence,) in found]


def find(connection: sqlite3.Connection, topic: str, ids: Collection[str]) -> list[int]:
    """The sequences of letters by id. Raises DeadLetterNotFoundError."""
    query = (_topic_id(connection, topic), json.dumps(list(ids)))
    found = connection.execute(_BY_ID, query).fetchall()
    if missing := sorted({*ids} - {id for _, id in found}):
        raise DeadLetterNotFoundError(f"no dead letter {', '.join(missing)} in {topic}")
    return [sequence for sequence, _ in found]


def read(connection: sqlite3.Connection, topic: str, sequences: Sequence[int]) -> list[DeadLetter]:
    """Letters by sequence."""
    return [
        DeadLetter(message=each.message, position=str(each.position), time=each.time)
        for each in rows.read_listed(connection, topic, sequences)
    ]


def replay(
    connection: sqlite3.Connection,
    topic: str,
    ids: Collection[str] | None,
    to_origin: bool,
    touched: set[str],
) -> int:
    """Replays letters, or raises before anything is written."""
    sequences = _chosen(connection, topic, ids)
    batches = [sequences[at : at + _BATCH] for at in range(0, len(sequences), _BATCH)]
    for batch in batches:  # read twice: nothing may be written before all are known to go
        for letter in read(connection, topic, batch):
            _destination(connection, letter.message, to_origin)
    for batch in batches:
        for letter, sequence in zip(read(connection, topic, batch), batch, strict=True):
            message, group = _destination(connection, letter.message, to_origin)
            touched.add(message.topic)
            _store(connection, message, group, letter.time)
            connection.execute("DELETE FROM protoflow_letters WHERE sequence = ?", (sequence,))
    remove_finished(connection, _topic_id(connection, topic))
    return len(sequences)


def purge(connection: sqlite3.Connection, topic: str, ids: Collection[str] | None) -> int:
    """Removes letters."""
    sequences = _chosen(connection, topic, ids)
    connection.execute(
        "DELETE FROM protoflow_letters WHERE sequence IN (SELECT value FROM json_each(?))",
        (json.dumps(sequences),),
    )
    remove_finished(connection, _topic_id(connection, topic))
    return len(sequences)


def _topic_id(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(_TOPIC, (name,)).fetchone()
    return int(row[0]) if row else 0


def _chosen(connection: sqlite3.Connection, topic: str, ids: Collection[str] | None) -> list[int]:
    if ids is None:
        return oldest(connection, topic, -1)
    return find(connection, topic, ids)


def _destination(
    connection: sqlite3.Connection, letter: Message, to_origin: bool
) -> tuple[Message, Group | None]:
    message = replayed(letter)
    if message is None:
        raise TopologyError(
            f"dead letter {letter.id} names no original topic, so it cannot be replayed; "
            "publish it anew and purge it"
        )
    if to_origin:
        return message, None
    name = letter.metadata.get(wire.PF_GROUP, "")
    group = find_group(connection, message.topic, name)
    if group is None:
        raise TopologyError(
            f"dead letter {letter.id} failed in the group {name!r} of {message.topic}, which "
            "does not exist; replay it to its original topic"
        )
    return message, group


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
