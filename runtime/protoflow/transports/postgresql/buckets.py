"""Groups with an order: each bucket belongs to one member, which hands out its messages in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from itertools import count

from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql import progress, waiting
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.bucket_reader import BucketReader
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InBucket, InWaiting, handed_out_again
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.ownership import Known, Ownership
from protoflow.transports.postgresql.turn import Turn
from protoflow.transports.postgresql.waiting_claims import WaitingClaims
from protoflow.transports.postgresql.waiting_moves import WaitingMoves

_UNKNOWN = Known(0, 0.0, 0.0, 0)


class Buckets:
    """Implements `Holdings` for a group with an order.

    Args:
        wake_after: calls `fetch` again after some seconds.
        revoke: lets the handlers of buckets finish, and takes back what they did not settle.
        paused: the buckets of which nothing is handed out.
        withdraw: takes back what was received and not handed out.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        wake_after: Callable[[float], None],
        revoke: Callable[[Collection[int]], Awaitable[None]],
        paused: Callable[[], Collection[Hashable]],
        withdraw: Callable[[Callable[[Delivery], bool]], Sequence[Delivery]],
    ) -> None:
        self._database = database
        self._membership = membership
        self._wake_after = wake_after
        self._paused = paused
        self._revoke = revoke
        self._withdraw = withdraw
        #: What `fetch` is about to return.
        self._handed: list[Delivery] = []
        self._loop = asyncio.get_running_loop()
        self._turns = count()
        self._ownership = Ownership(database, membership, lambda: wake_after(0.0), self._leave)
        self._owned = self._ownership.buckets
        self._known = self._ownership.known
        self.turn = Turn(database)
        self._waiting = WaitingClaims(database, membership, self._turns, self._take_up)
        self._moves = WaitingMoves(database, membership, self.turn)
        self._reader = BucketReader(
            database, membership, self._known, self._turns, self._lane, self._wake_at
        )

    async def start(self) -> None:
        """Takes buckets, and goes on to share them with other members."""
        await self._ownership.start()

    async def stop(self) -> None:
        """Shares no longer."""
        await self._ownership.stop()

    def abort(self) -> None:
        """Shares no longer, and waits for nothing."""
        self._ownership.abort()

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `QueueSource.fetch`."""
        await self._waiting.resolve()
        await self.turn.resolve()
        next_due = await self._waiting.claim(max_messages, self._open_buckets())
        if next_due is not None:
            self._wake_after(next_due)
        found: list[Delivery] = []
        self._handed = found
        now = self._loop.time()
        for bucket in self._open_buckets():
            found += bucket.take_returned(now, max_messages - len(found))
            self._wake_at(bucket)
        try:
            await self._read(found, max_messages, max_bytes)
        except BaseException:
            self.take_back()
            raise
        self._loop.call_soon(self._hand_over)  # runs just before the caller gets them
        return found

    async def _read(self, found: list[Delivery], max_messages: int, max_bytes: int) -> None:
        """Reads new messages beside those that were found."""
        reader = self._reader
        max_bytes -= sum(each.size for each in found)
        more = await reader.read(self._open_buckets(), found, max_messages, max_bytes)
        if not more and len(found) < max_messages and await reader.open(self._staying()):
            more = await reader.read(self._open_buckets(), found, max_messages, max_bytes)
        if await self._moves.move(self._staying()) or more:
            self._wake_after(0.0)

    def _hand_over(self) -> None:
        self._handed = []

    def take_back(self) -> None:
        """See `Holdings.take_back`."""
        handed, self._handed = self._handed, []
        for delivery in handed:
            self._give_back(delivery)

    def _take_up(self, delivery: Delivery) -> None:
        """A row that waited was claimed."""
        if (bucket := self._owned.get(int(delivery.shard))) is not None:
            bucket.take_up(self._lane(delivery), int(delivery.position))
        self._give_back(delivery)

    def _give_back(self, delivery: Delivery) -> None:
        """A delivery that was not handed out is so later."""
        if (bucket := self._owned.get(int(delivery.shard))) is not None:
            bucket.give_back(delivery, self._lane(delivery))

    def begin(self, settlements: Sequence[Settlement]) -> None:
        """What is given back goes before the later messages of its lane."""
        for bucket, lane in self._given_back(settlements):
            bucket.begin_settling(lane)
            self._withdraw_lane(bucket, lane)

    def end(self, settlements: Sequence[Settlement]) -> None:
        """See `Holdings.end`."""
        for bucket, lane in self._given_back(settlements):
            bucket.end_settling(lane)
        self._wake_after(0.0)

    async def lock(
        self, connection: Connection, deliveries: Collection[Delivery]
    ) -> tuple[set[Delivery], str]:
        """See `Holdings.lock`."""
        member = self._membership
        numbers = {each.receipt.bucket for each in deliveries}
        owned, xid = await member.lock_owned(connection, numbers)
        ids = [each.receipt.id for each in deliveries if isinstance(each.receipt, InWaiting)]
        held, _ = await waiting.lock(self._database, connection, ids, member.id)
        found = {
            each
            for each in deliveries
            if each.receipt.bucket in owned
            and (
                each.receipt.id in held
                if isinstance(each.receipt, InWaiting)
                else self._holds(each.receipt)
            )
        }
        return found, xid

    async def write(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> Callable[[], None]:
        """See `Holdings.write`."""
        database, group = self._database, self._membership.group
        finished: dict[int, set[int]] = {}
        of_waiting: list[tuple[int, Settlement]] = []
        failed: list[tuple[InBucket, Settlement]] = []
        for settlement in settlements:
            for delivery in (settlement.delivery, *settlement.others):
                receipt = delivery.receipt
                if isinstance(receipt, InWaiting):
                    of_waiting.append((receipt.id, settlement))
                elif settlement.action is Action.ACK:
                    finished.setdefault(receipt.bucket, set()).add(receipt.seq)
                elif settlement.action is Action.NACK or settlement.failures:
                    failed.append((receipt, settlement))
        moved = {self._owned[number]: seqs for number, seqs in finished.items()}
        await waiting.settle(database, connection, of_waiting, keep=True)
        await progress.fail(database, connection, group.id, failed)
        await progress.move(database, connection, group.id, moved)
        known = [seq for seqs in finished.values() for seq in seqs if seq in self._known]
        await progress.forget(database, connection, group.id, known)
        now = self._loop.time()

        def committed() -> None:
            self._settled(settlements, finished, now)

        return committed

    async def claimable(self) -> int:
        """See `Availability`."""
        ((found,),) = await self._database.fetch(
            "SELECT count(*) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL "
            "AND due <= (SELECT {s}.now()) AND bucket = ANY ($2::int[])",
            self._membership.group.id,
            [*self._owned],
        )
        now = self._loop.time()
        return int(found) + sum(bucket.count_free(now) for bucket in self._open_buckets())

    def clear(self) -> None:
        """Everything was lost."""
        self._handed.clear()  # the list that `fetch` returns
        self._ownership.clear()
        self._waiting.clear()

    def mark(self, seq: int, marks: int) -> None:
        """A start mark was written."""
        self._known[seq] = self._known.get(seq, _UNKNOWN)._replace(marks=marks)

    def _holds(self, receipt: InBucket) -> bool:
        bucket = self._owned.get(receipt.bucket)
        return bucket is not None and bucket.holds(receipt.seq)

    def _staying(self) -> list[Bucket]:
        return [each for each in self._owned.values() if not each.leaving]

    def _open_buckets(self) -> list[Bucket]:
        paused = self._paused()
        return [each for each in self._staying() if each.number not in paused]

    def _lane(self, delivery: Delivery) -> Hashable:
        """What must be handled in turn; None: nothing."""
        if self._membership.group.ordering is Ordering.PER_PARTITION:
            return b""
        return delivery.message.key or None

    def _given_back(self, settlements: Sequence[Settlement]) -> list[tuple[Bucket, Hashable]]:
        found: list[tuple[Bucket, Hashable]] = []
        for settlement in settlements:
            if settlement.action is not Action.ACK:
                bucket = self._owned.get(int(settlement.delivery.shard))
                lane = self._lane(settlement.delivery)
                if bucket is not None and lane is not None:
                    found.append((bucket, lane))
        return found

    def _wake_at(self, bucket: Bucket) -> None:
        due = min((each.due for each in bucket.returned if each.due), default=None)
        if due is not None:
            self._wake_after(max(0.0, due - self._loop.time()))

    def _withdraw_lane(self, bucket: Bucket, lane: Hashable) -> None:
        """Takes back what of a lane was fetched and not handed out."""
        self._take_back(
            lambda delivery: delivery.shard == bucket.number and self._lane(delivery) == lane
        )

    def _take_back(self, unwanted: Callable[[Delivery], bool]) -> None:
        handed = [each for each in self._handed if unwanted(each)]
        for delivery in handed:
            self._handed.remove(delivery)
        for delivery in (*handed, *self._withdraw(unwanted)):
            self._give_back(delivery)

    async def _leave(self, buckets: Collection[int]) -> None:
        """Lets the handlers of buckets finish, and hands out nothing more of them."""
        self._take_back(lambda delivery: delivery.shard in buckets)
        await self._revoke(buckets)

    def _settled(
        self, settlements: Sequence[Settlement], finished: dict[int, set[int]], now: float
    ) -> None:
        for number, seqs in finished.items():
            if (bucket := self._owned.get(number)) is not None:
                bucket.finish(seqs)
            for seq in seqs:
                self._known.pop(seq, None)
        for settlement in settlements:
            if settlement.action is Action.ACK:
                continue
            delivery = settlement.delivery
            bucket = self._owned.get(int(delivery.shard))
            if bucket is None:
                continue
            again = handed_out_again(settlement, next(self._turns))
            due = now + settlement.delay if settlement.action is Action.NACK else 0.0
            if isinstance(again.receipt, InBucket) and settlement.failures:
                marks = self._known.get(again.receipt.seq, _UNKNOWN).marks
                self._known[again.receipt.seq] = Known(
                    settlement.failures, settlement.first_failure, due, marks
                )
            bucket.give_back(again, self._lane(again), due)
