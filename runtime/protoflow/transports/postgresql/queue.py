"""Groups without an order: a queue, from which each member claims as much as it has room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql import positions, progress, waiting
from protoflow.transports.postgresql.claiming import INSERT, SHORTEN, Claimed, Claimer, Room
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.doubt import Doubt
from protoflow.transports.postgresql.holdings import InClaim, InWaiting
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Position, Seen
from protoflow.transports.postgresql.schema import BUCKETS
from protoflow.transports.postgresql.turn import Turn

#: What another member that claims is given before the next attempt, in seconds.
_BUSY = 0.003
_ALL = [*range(BUCKETS)]
_STATE = """
SELECT coalesce(next.due <= {s}.now(), false),
  EXISTS (SELECT 1 FROM {s}.claims WHERE group_id = $1 AND member IS NULL),
  next.due - {s}.now(), pg_postmaster_start_time()::text
FROM (SELECT min(due) AS due FROM {s}.waiting WHERE group_id = $1 AND member IS NULL) AS next
"""
_LOCK = """
SELECT id, pg_current_xact_id()::text FROM {s}.claims
WHERE id = ANY ($1::int8[]) AND member = $2 FOR UPDATE
"""
_PLACES = "SELECT base::text, open::text, low, seqs FROM {s}.cursors WHERE group_id = $1"
_CLAIMABLE = """
SELECT {s}.now(), (SELECT count(*) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
    AND due <= (SELECT {s}.now()))
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
        self._claimer = Claimer(database, membership)
        self._doubt = Doubt(database)
        self.turn = Turn(database)
        #: What was claimed, and not returned yet.
        self._found: list[Delivery] = []
        #: The result of `fetch` until its caller gets it.
        self._handed: list[Delivery] = []
        #: What each claim of this member still holds: bucket by number.
        self._claims: dict[int, dict[int, int]] = {}
        #: What the log looked like when nothing was left to read; None: there may be something.
        self._seen: Seen | None = None
        self._server = ""
        self._loop = asyncio.get_running_loop()

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `QueueSource.fetch`."""
        await self._doubt.resolve()
        if self._found:
            return self._take_found()
        group = self._membership.group
        ((waiting_due, free, next_due, server),) = await self._database.fetch(_STATE, group.id)
        if next_due is not None and next_due > 0:
            self._wake_after(next_due)
        if server != self._server:
            self._server, self._seen = server, None  # it was seen at another server
        if self._seen is not None:
            self._seen = await positions.look_again(self._database, group.topic, _ALL, self._seen)
        if not (waiting_due or free or self._seen is None):
            return ()
        upto = await positions.raise_ids(self._database) if self._seen is None else None
        claimed = await self._claim(Room(max_messages, max_bytes), waiting_due, free, upto)
        if upto is not None:
            self._seen = claimed.seen
        if claimed.due_in is not None:
            self._wake_after(claimed.due_in)
        if self._seen is None and not claimed.deliveries:
            self._wake_after(_BUSY)
        return self._take_found()

    async def _claim(self, room: Room, waiting_due: bool, free: bool, upto: int | None) -> Claimed:
        """Claims in one transaction."""
        claimed, claimer, finished = Claimed(), self._claimer, ""
        try:
            async with self._membership.claiming() as (connection, xid):
                if waiting_due:
                    await claimer.claim_waiting(connection, room, claimed)
                if free and room:
                    await claimer.claim_free(connection, room, claimed)
                if upto is not None and room:
                    await claimer.claim_fresh(connection, room, upto, claimed)
                finished = xid
        except BaseException:
            if finished:  # it came so far, so it may be committed
                self._doubt.set(finished, partial(self._keep, claimed))
            raise
        self._keep(claimed)
        return claimed

    def _keep(self, claimed: Claimed) -> None:
        self._claims.update(claimed.claims)
        self._found += claimed.deliveries

    def _take_found(self) -> list[Delivery]:
        found, self._found = self._found, []
        self._handed = found
        self._loop.call_soon(self._hand_over)  # runs just before the caller gets it
        return found

    def _hand_over(self) -> None:
        self._handed = []

    def take_back(self) -> None:
        """See `Holdings.take_back`."""
        self._found, self._handed = [*self._handed, *self._found], []

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
        await self._unmark(connection, of_log)
        gone = [receipt for receipt, _ in of_log]
        left = self._without(gone)
        await self._shorten(connection, left)
        await self._release(connection, of_log)

        def committed() -> None:
            for receipt in gone:
                held = self._claims.get(receipt.claim, {})
                held.pop(receipt.seq, None)
                if not held:
                    self._claims.pop(receipt.claim, None)

        return committed

    async def _unmark(
        self, connection: Connection, of_log: Sequence[tuple[InClaim, Settlement]]
    ) -> None:
        """Deletes the start marks of what is settled."""
        marked = [receipt.seq for receipt, each in of_log if each.delivery.suspect]
        await progress.forget(self._database, connection, self._membership.group.id, marked)

    async def claimable(self) -> int:
        """See `Availability`."""
        group = self._membership.group
        ((now, found),) = await self._database.fetch(_CLAIMABLE, group.id)
        ((base, opened, low, seqs),) = await self._database.fetch(_PLACES, group.id)
        places = {
            bucket: Position(base, opened, low, 0, 0, seqs[bucket]) for bucket in range(BUCKETS)
        }
        unread, _ = await positions.count_unread(self._database, group.topic, places, now)
        return int(found) + unread

    def clear(self) -> None:
        """Everything was lost."""
        self._claims.clear()
        self._found.clear()
        self._handed.clear()  # the list that `fetch` returns
        self._doubt.clear()
        self._seen = None

    async def stop(self) -> None:
        """Nothing runs by itself."""

    def abort(self) -> None:
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
                    self._database.sql(SHORTEN), claim, [*seqs.values()], [*seqs]
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
                self._database.sql(INSERT),
                self._membership.group.id,
                None,
                deliveries,
                [receipt.bucket for receipt in receipts],
                [receipt.seq for receipt in receipts],
            )


def _is_kept(settlement: Settlement) -> bool:
    """Whether failed runs or a wait are to be remembered, which takes a row of its own."""
    return settlement.action is Action.NACK or (
        settlement.action is Action.RELEASE and settlement.failures > 0
    )
