"""Groups without an order: a queue, from which each member claims as much as it has room for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import count

from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql import positions, waiting
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InClaim, InWaiting
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Opening, Position
from protoflow.transports.postgresql.rows import read_delivery
from protoflow.transports.postgresql.schema import BUCKETS

_log = logging.getLogger("protoflow.transports.postgresql")
#: What another member that claims is given before the next attempt, in seconds.
_BUSY = 0.003
_STATE = """
SELECT EXISTS (SELECT 1 FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
    AND due <= {s}.now()),
  EXISTS (SELECT 1 FROM {s}.claims WHERE group_id = $1 AND member IS NULL),
  (SELECT min(due) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL) - {s}.now(),
  pg_current_snapshot()::text,
  (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {s}.log_seq)
"""
_FREE = """
SELECT id, deliveries, buckets, seqs FROM {s}.claims
WHERE group_id = $1 AND member IS NULL ORDER BY id LIMIT 8 FOR UPDATE SKIP LOCKED
"""
_TAKE = "UPDATE {s}.claims SET member = $2, deliveries = $3 WHERE id = $1"
_SHORTEN = "UPDATE {s}.claims SET buckets = $2, seqs = $3 WHERE id = $1"
_INSERT = """
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
_LOCK = """
SELECT id, pg_current_xact_id()::text FROM {s}.claims
WHERE id = ANY ($1::int8[]) AND member = $2 FOR UPDATE
"""
_PLACES = "SELECT base::text, open::text, low, seqs FROM {s}.cursors WHERE group_id = $1"
_CLAIMABLE = """
SELECT (SELECT count(*) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
    AND due <= {s}.now())
  + (SELECT coalesce(sum(cardinality(seqs)), 0) FROM {s}.claims
    WHERE group_id = $1 AND member IS NULL)
"""


class Queue:
    """Implements `Holdings` for a group without an order.

    Args:
        wake_after: calls `fetch` again after some seconds.
    """

    def __init__(
        self, database: Database, membership: Membership, wake_after: Callable[[float], None]
    ) -> None:
        self._database = database
        self._membership = membership
        self._wake_after = wake_after
        self._turns = count()
        #: What each claim of this member still holds: bucket by number.
        self._claims: dict[int, dict[int, int]] = {}
        #: The state in which there was nothing left to read; None: there may be something.
        self._read_at: tuple[str, int] | None = None

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `QueueSource.fetch`."""
        group = self._membership.group
        ((waiting_due, free, next_due, *state),) = await self._database.fetch(_STATE, group.id)
        state = (state[0], state[1])
        unread = (
            self._read_at is None or state[0] != self._read_at[0] or state[1] != self._read_at[1]
        )
        if next_due is not None and next_due > 0:
            self._wake_after(next_due)
        if not (waiting_due or free or unread):
            return ()
        room = _Room(max_messages, max_bytes)
        upto = await positions.raise_ids(self._database) if unread else None
        claims: dict[int, dict[int, int]] = {}
        async with self._database.transaction(relaxed=True) as connection:
            found: list[Delivery] = []
            if waiting_due:
                found += await self._claim_waiting(connection, room)
            if free and room:
                found += await self._claim_free(connection, room, claims)
            read_at = self._read_at
            if upto is not None and room:
                fresh, exhausted = await self._claim_fresh(connection, room, upto, claims)
                found += fresh
                read_at = state if exhausted else None
        self._claims.update(claims)
        self._read_at = read_at
        if read_at is None and not found:
            self._wake_after(_BUSY)
        return found

    def begin(self, settlements: Sequence[Settlement]) -> None:
        """Nothing is in the way of settlements."""

    def end(self, settlements: Sequence[Settlement]) -> None:
        """Nothing was in the way of settlements."""

    async def lock(
        self, connection: Connection, deliveries: Collection[Delivery]
    ) -> tuple[set[Delivery], str]:
        """See `Holdings.lock`."""
        database, member = self._database, self._membership.id
        receipts = [each.receipt for each in deliveries]
        claims = [*{each.claim for each in receipts if isinstance(each, InClaim)}]
        rows = await connection.fetch(database.sql(_LOCK), claims, member) if claims else ()
        held = {row[0] for row in rows}
        ids = [each.id for each in receipts if isinstance(each, InWaiting)]
        rows_waiting, xid = await waiting.lock(database, connection, ids, member)
        found = {
            each
            for each in deliveries
            if (
                each.receipt.id in rows_waiting
                if isinstance(each.receipt, InWaiting)
                else each.receipt.claim in held
                and each.receipt.seq in self._claims.get(each.receipt.claim, ())
            )
        }
        return found, rows[0][1] if rows else xid

    async def write(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> Callable[[], None]:
        """See `Holdings.write`."""
        database, group = self._database, self._membership.group
        of_log: list[tuple[InClaim, Settlement]] = []
        of_waiting: list[tuple[int, Settlement]] = []
        for settlement in settlements:
            for delivery in (settlement.delivery, *settlement.others):
                if isinstance(delivery.receipt, InClaim):
                    of_log.append((delivery.receipt, settlement))
                else:
                    of_waiting.append((delivery.receipt.id, settlement))
        await waiting.settle(database, connection, of_waiting)
        failed = [
            ((receipt.bucket, receipt.seq), each) for receipt, each in of_log if _is_kept(each)
        ]
        if failed:
            await waiting.copy(database, connection, (group.id, group.topic), failed)
        marked = [receipt.seq for receipt, each in of_log if each.delivery.suspect]
        if marked:
            await connection.execute(
                database.sql(
                    "DELETE FROM {s}.failures WHERE group_id = $1 AND seq = ANY ($2::int8[])"
                ),
                group.id,
                marked,
            )
        left = self._without([receipt for receipt, _ in of_log])
        await self._shorten(connection, left)
        await self._release(connection, of_log)

        def committed() -> None:
            for claim, seqs in left.items():
                if seqs:
                    self._claims[claim] = seqs
                else:
                    self._claims.pop(claim, None)

        return committed

    async def claimable(self) -> int:
        """See `Availability`."""
        group = self._membership.group
        ((found,),) = await self._database.fetch(_CLAIMABLE, group.id)
        ((base, opened, low, seqs),) = await self._database.fetch(_PLACES, group.id)
        places = {
            bucket: Position(base, opened, low, 0, 0, seqs[bucket]) for bucket in range(BUCKETS)
        }
        unread, _ = await positions.count_unread(self._database, group.topic, places)
        return int(found) + unread

    def clear(self) -> None:
        """Everything was lost."""
        self._claims.clear()
        self._read_at = None

    async def stop(self) -> None:
        """Nothing runs by itself."""

    def _without(self, receipts: Sequence[InClaim]) -> dict[int, dict[int, int]]:
        """What remains of claims once messages are settled."""
        left: dict[int, dict[int, int]] = {}
        for receipt in receipts:
            if receipt.claim not in left:
                left[receipt.claim] = dict(self._claims[receipt.claim])
            left[receipt.claim].pop(receipt.seq, None)
        return left

    async def _shorten(self, connection: Connection, left: dict[int, dict[int, int]]) -> None:
        empty = [claim for claim, seqs in left.items() if not seqs]
        if empty:
            await connection.execute(
                self._database.sql("DELETE FROM {s}.claims WHERE id = ANY ($1::int8[])"), empty
            )
        for claim, seqs in left.items():
            if seqs:
                await connection.execute(
                    self._database.sql(_SHORTEN), claim, [*seqs.values()], [*seqs]
                )

    async def _release(
        self, connection: Connection, of_log: Sequence[tuple[InClaim, Settlement]]
    ) -> None:
        released: dict[int, list[InClaim]] = {}
        for receipt, each in of_log:
            if each.action is Action.RELEASE and not _is_kept(each):
                released.setdefault(each.delivery.deliveries - 1, []).append(receipt)
        for deliveries, receipts in released.items():
            await connection.fetchval(
                self._database.sql(_INSERT),
                self._membership.group.id,
                None,
                deliveries,
                [receipt.bucket for receipt in receipts],
                [receipt.seq for receipt in receipts],
            )

    async def _claim_waiting(self, connection: Connection, room: _Room) -> list[Delivery]:
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
        return found

    async def _claim_free(
        self, connection: Connection, room: _Room, claims: dict[int, dict[int, int]]
    ) -> list[Delivery]:
        """Claims again what others gave back, or held when they died."""
        database, group, member = self._database, self._membership.group, self._membership.id
        found: list[Delivery] = []
        for id, deliveries, buckets, seqs in await connection.fetch(database.sql(_FREE), group.id):
            if not room:
                break
            most = room.messages
            claim = id
            if len(seqs) > most:
                await connection.execute(database.sql(_SHORTEN), id, buckets[most:], seqs[most:])
                buckets, seqs = buckets[:most], seqs[:most]
                claim = await connection.fetchval(
                    database.sql(_INSERT), group.id, member, deliveries + 1, buckets, seqs
                )
            else:
                await connection.execute(database.sql(_TAKE), id, member, deliveries + 1)
            rows = await connection.fetch(
                database.sql(_LISTED), group.topic, buckets, seqs, group.id
            )
            if len(rows) < len(seqs):
                _log.error(
                    "messages were removed before they were handled",
                    extra={"topic": group.topic_name, "messages": len(seqs) - len(rows)},
                )
            claims[claim] = {row[1]: row[0] for row in rows}
            for bucket, seq, *content, marks in rows:
                delivery = read_delivery(
                    group.topic_name,
                    bucket,
                    seq,
                    content,
                    receipt=InClaim(claim, bucket, seq),
                    deliveries=deliveries + 1,
                )
                delivery.suspect = marks > 0
                room.take(delivery.size)
                found.append(delivery)
        return found

    async def _claim_fresh(
        self,
        connection: Connection,
        room: _Room,
        upto: int,
        claims: dict[int, dict[int, int]],
    ) -> tuple[list[Delivery], bool]:
        """Claims what nobody has claimed; whether nothing is left."""
        database, group = self._database, self._membership.group
        row = await connection.fetchrow(database.sql(_CURSOR), group.id)
        if row is None:
            return [], False  # another member claims at this moment
        seqs = row[5]
        base, opened, low, high, beyond = row[:5]
        batch = Position(base, opened, low, high, beyond, 0)
        found: list[Delivery] = []
        exhausted = await self._read(connection, batch, seqs, room, found)
        if exhausted and room:
            opened, high = await connection.fetchrow(database.sql(positions.OPEN))
            batch = positions.next_batch(batch, Opening(opened, high, upto))
            seqs = [0] * BUCKETS
            exhausted = await self._read(connection, batch, seqs, room, found)
        else:
            exhausted = False
        await connection.execute(database.sql(_MOVE), group.id, *batch[:5], seqs)
        if found:
            claim = await connection.fetchval(
                database.sql(_INSERT),
                group.id,
                self._membership.id,
                1,
                [each.shard for each in found],
                [each.position for each in found],
            )
            claims[claim] = {int(each.position): int(each.shard) for each in found}
            for each in found:
                each.receipt = InClaim(claim, int(each.shard), int(each.position))
        return found, exhausted

    async def _read(
        self,
        connection: Connection,
        batch: Position,
        seqs: list[int],
        room: _Room,
        found: list[Delivery],
    ) -> bool:
        """Reads on in every bucket, moving `seqs`; whether the batch has no more."""
        hungry = [*range(BUCKETS)]
        while hungry and room:
            most = max(1, -(-room.messages // len(hungry)))
            size = len(hungry)
            rows = await connection.fetch(
                self._database.sql(positions.READ),
                self._membership.group.topic,
                hungry,
                [batch.base] * size,
                [batch.open] * size,
                [batch.low] * size,
                [batch.high] * size,
                [seqs[bucket] for bucket in hungry],
                most,
            )
            counts: dict[int, int] = {}
            full: set[int] = set()
            delayed: list[tuple[int, int, float]] = []
            for bucket, seq, wait, *content in rows:
                counts[bucket] = counts.get(bucket, 0) + 1
                if bucket in full:
                    continue
                if wait > 0:
                    seqs[bucket] = seq
                    delayed.append((bucket, seq, wait))
                    continue
                delivery = read_delivery(
                    self._membership.group.topic_name, bucket, seq, content, receipt=None
                )
                if not room.fits(delivery.size):
                    full.add(bucket)
                    continue
                room.take(delivery.size)
                seqs[bucket] = seq
                found.append(delivery)
            if delayed:
                group = self._membership.group
                await waiting.set_aside(
                    self._database, connection, (group.id, group.topic), delayed
                )
                self._wake_after(min(wait for _, _, wait in delayed))
            if full:
                return False
            hungry = [bucket for bucket in hungry if counts.get(bucket, 0) >= most]
        return not hungry


def _is_kept(settlement: Settlement) -> bool:
    """Whether failed runs or a wait are to be remembered, which takes a row of its own."""
    return settlement.action is Action.NACK or (
        settlement.action is Action.RELEASE and settlement.failures > 0
    )


class _Room:
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
