"""Claiming for a member of a group without an order: what waits, what others left, what is new."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from protoflow.message import Delivery
from protoflow.transports.postgresql import positions, waiting
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InClaim
from protoflow.transports.postgresql.lost_position import PositionLostError
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Opening, Position, Seen
from protoflow.transports.postgresql.rows import read_delivery
from protoflow.transports.postgresql.schema import BUCKETS

#: One claim sets aside about so many delayed messages, and reads them in pages of this size.
_MOST_ASIDE, _PAGE = 1000, 32
_log = logging.getLogger("protoflow.transports.postgresql")
_FREE = """
SELECT id, deliveries, buckets, seqs FROM {s}.claims
WHERE group_id = $1 AND member IS NULL ORDER BY id LIMIT 8 FOR UPDATE SKIP LOCKED
"""
_TAKE = "UPDATE {s}.claims SET member = $2, deliveries = $3 WHERE id = $1"
SHORTEN = "UPDATE {s}.claims SET buckets = $2, seqs = $3 WHERE id = $1"
INSERT = """
INSERT INTO {s}.claims (group_id, member, deliveries, buckets, seqs) VALUES ($1, $2, $3, $4, $5)
RETURNING id
"""
_LISTED = """
SELECT l.bucket, l.seq, l.key, l.head, l.payload, l.at, coalesce(f.marks, 0)
FROM unnest($2::int[], $3::int8[]) AS u(bucket, seq)
JOIN {s}.log l ON l.topic = $1 AND l.bucket = u.bucket AND l.seq = u.seq
LEFT JOIN {s}.failures f ON f.group_id = $4 AND f.seq = l.seq
ORDER BY l.seq
"""
_CURSOR = """
SELECT base::text, open::text, low, high, upto, seqs FROM {s}.cursors WHERE group_id = $1
FOR UPDATE SKIP LOCKED
"""
_MOVE = """
UPDATE {s}.cursors SET base = $2::text::pg_snapshot, open = $3::text::pg_snapshot, low = $4,
  high = $5, upto = $6, seqs = $7 WHERE group_id = $1
"""


class Room:
    """How much may still be claimed: so many messages, and in all but the first so many bytes."""

    def __init__(self, messages: int, size: int) -> None:
        self.messages = messages
        self._size = size
        self._empty = True

    def __bool__(self) -> bool:
        return self.messages > 0 and (self._size > 0 or self._empty)

    def fits(self, size: int) -> bool:
        """Whether a message may be taken."""
        return self.messages > 0 and (self._empty or size <= self._size)

    def take(self, size: int) -> None:
        """Counts a message."""
        self.messages -= 1
        self._size -= size
        self._empty = False


@dataclass(slots=True)
class Claimed:
    """What a transaction claimed.

    Attributes:
        deliveries: the messages.
        claims: what each claim of the log holds: bucket by number.
        seen: what the log looked like when nothing was left to read; None: there may be something.
        due_in: seconds after which a delayed message that was set aside is due; None: none was.
        aside: how many messages were set aside.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    claims: dict[int, dict[int, int]] = field(default_factory=dict)
    seen: Seen | None = None
    due_in: float | None = None
    aside: int = 0


class Claimer:
    """Claims in transactions of its caller."""

    def __init__(self, database: Database, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self._turns = count()

    async def claim_waiting(self, connection: Connection, room: Room, claimed: Claimed) -> None:
        """Claims rows that are due."""
        group = self._membership.group
        found = await waiting.claim(
            self._database,
            connection,
            (group.id, group.topic_name),
            self._membership.id,
            room.messages,
            turn=next(self._turns),
        )
        for delivery in found:
            room.take(delivery.size)
        claimed.deliveries += found

    async def claim_free(self, connection: Connection, room: Room, claimed: Claimed) -> None:
        """Claims again what others gave back, or held when they died."""
        database, group = self._database, self._membership.group
        for row in await connection.fetch(database.sql(_FREE), group.id):
            if not room:
                break
            claim, deliveries, buckets, seqs = await self._take(connection, row, room.messages)
            rows = await connection.fetch(
                database.sql(_LISTED), group.topic, buckets, seqs, group.id
            )
            if len(rows) < len(seqs):
                _log.error(
                    "messages were removed before they were handled",
                    extra={"topic": group.topic_name, "messages": len(seqs) - len(rows)},
                )
            claimed.claims[claim] = {row[1]: row[0] for row in rows}
            for bucket, seq, *content, marks in rows:
                delivery = read_delivery(
                    group.topic_name,
                    bucket,
                    seq,
                    content,
                    receipt=InClaim(claim, bucket, seq),
                    deliveries=deliveries,
                )
                delivery.suspect = marks > 0
                room.take(delivery.size)
                claimed.deliveries.append(delivery)

    async def claim_fresh(
        self, connection: Connection, room: Room, upto: int, claimed: Claimed
    ) -> None:
        """Claims what nobody has claimed."""
        database, group = self._database, self._membership.group
        row = await connection.fetchrow(database.sql(_CURSOR), group.id)
        if row is None:
            return  # another member claims at this moment
        base, opened, low, high, beyond, seqs = row
        reading = _Reading(Position(base, opened, low, high, beyond, 0), seqs)
        exhausted = await self._read(connection, reading, room, claimed)
        if exhausted and room:
            opened, high = await connection.fetchrow(database.sql(positions.OPEN))
            if positions.is_ahead(reading.batch, opened):
                raise PositionLostError("the position is ahead of the server")
            batch = positions.next_batch(reading.batch, Opening(opened, high, upto))
            following = _Reading(batch, [0] * BUCKETS, reading.found)
            if await self._read(connection, following, room, claimed):
                claimed.seen = Seen(upto, opened)
            reading = following
        await connection.execute(database.sql(_MOVE), group.id, *reading.batch[:5], reading.seqs)
        found = reading.found
        if found:
            claim = await connection.fetchval(
                database.sql(INSERT),
                group.id,
                self._membership.id,
                1,
                [each.shard for each in found],
                [each.position for each in found],
            )
            claimed.claims[claim] = {int(each.position): int(each.shard) for each in found}
            for each in found:
                each.receipt = InClaim(claim, int(each.shard), int(each.position))
            claimed.deliveries += found

    async def _take(
        self, connection: Connection, row: Sequence[Any], most: int
    ) -> tuple[int, int, list[int], list[int]]:
        """Takes a free claim, or as much of it as there is room for."""
        database, group, member = self._database, self._membership.group, self._membership.id
        claim, deliveries, buckets, seqs = row
        if len(seqs) <= most:
            await connection.execute(database.sql(_TAKE), claim, member, deliveries + 1)
            return claim, deliveries + 1, buckets, seqs
        await connection.execute(database.sql(SHORTEN), claim, buckets[most:], seqs[most:])
        buckets, seqs = buckets[:most], seqs[:most]
        claim = await connection.fetchval(
            database.sql(INSERT), group.id, member, deliveries + 1, buckets, seqs
        )
        return claim, deliveries + 1, buckets, seqs

    async def _read(
        self, connection: Connection, reading: _Reading, room: Room, claimed: Claimed
    ) -> bool:
        """Reads on in every bucket; whether the batch has no more."""
        hungry = [*range(BUCKETS)]
        while hungry and room:
            page = _PAGE if claimed.aside else 1
            most = max(page, -(-room.messages // len(hungry)))
            batch, size = reading.batch, len(hungry)
            rows = await connection.fetch(
                self._database.sql(positions.READ),
                self._membership.group.topic,
                hungry,
                [batch.base] * size,
                [batch.open] * size,
                [batch.low] * size,
                [batch.high] * size,
                [reading.seqs[bucket] for bucket in hungry],
                most,
            )
            full, delayed = self._take_rows(rows, reading, room)
            if delayed:
                group = self._membership.group
                await waiting.set_aside(
                    self._database, connection, (group.id, group.topic), delayed
                )
                due_in = min(wait for _, _, wait in delayed)
                claimed.due_in = min(due_in, claimed.due_in or due_in)
                claimed.aside += len(delayed)
            if full or claimed.aside >= _MOST_ASIDE:
                return False
            counts: dict[int, int] = {}
            for row in rows:
                counts[row[0]] = counts.get(row[0], 0) + 1
            hungry = [bucket for bucket in hungry if counts.get(bucket, 0) >= most]
        return not hungry

    def _take_rows(
        self, rows: Sequence[Sequence[Any]], reading: _Reading, room: Room
    ) -> tuple[set[int], list[tuple[int, int, float]]]:
        """Takes what there is room for; which buckets have more, and what is delayed."""
        topic = self._membership.group.topic_name
        full: set[int] = set()
        delayed: list[tuple[int, int, float]] = []
        for bucket, seq, wait, *content in rows:
            if bucket in full:
                continue
            if wait > 0:
                reading.seqs[bucket] = seq
                delayed.append((bucket, seq, wait))
                continue
            delivery = read_delivery(topic, bucket, seq, content, receipt=None)
            if not room.fits(delivery.size):
                full.add(bucket)
                continue
            room.take(delivery.size)
            reading.seqs[bucket] = seq
            reading.found.append(delivery)
        return full, delayed


@dataclass(slots=True)
class _Reading:
    """A batch, how far each bucket is read, and what was found."""

    batch: Position
    seqs: list[int]
    found: list[Delivery] = field(default_factory=list)
