"""Groups with an order: each bucket belongs to one member, which hands out its messages in turn."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from itertools import count
from typing import Any

from protoflow.contract.spec import Ordering
from protoflow.errors import ProtoflowError
from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql import positions, waiting
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InBucket, InWaiting
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Position
from protoflow.transports.postgresql.rows import read_delivery
from protoflow.transports.postgresql.schema import BUCKETS

_log = logging.getLogger("protoflow.transports.postgresql")
#: Seconds between two looks at who else is in the group.
_BALANCE = 0.5
#: So many messages of a bucket may be unfinished, or finished behind unfinished ones.
_WINDOW = 2000
_MEMBERS = "SELECT count(*) FROM {s}.members WHERE group_id = $1 AND until >= {s}.now()"
_TAKE = """
UPDATE {s}.owners o SET member = $2 FROM (
  SELECT bucket FROM {s}.owners WHERE group_id = $1 AND member IS NULL
  ORDER BY bucket LIMIT $3 FOR UPDATE SKIP LOCKED) free
WHERE o.group_id = $1 AND o.bucket = free.bucket RETURNING o.bucket, o.crashes
"""
_PROGRESS = """
SELECT bucket, base::text, open::text, low, high, upto, seq, done FROM {s}.progress
WHERE group_id = $1 AND bucket = ANY ($2::int[])
"""
_FAILURES = """
SELECT bucket, seq, failures, first_failure, due - {s}.now(), marks FROM {s}.failures
WHERE group_id = $1 AND bucket = ANY ($2::int[])
"""
_LEAVE = """
UPDATE {s}.owners SET member = NULL, crashes = 0
WHERE group_id = $1 AND bucket = ANY ($2::int[]) AND member = $3
"""
_LEAVE_WAITING = """
UPDATE {s}.waiting SET member = NULL, deliveries = deliveries - 1
WHERE member = $1 AND bucket = ANY ($2::int[])
"""
_STATE = """
SELECT EXISTS (SELECT 1 FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
    AND due <= {s}.now()),
  (SELECT min(due) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL) - {s}.now(),
  pg_current_snapshot()::text,
  (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {s}.log_seq)
"""
_LOCK = """
SELECT bucket, pg_current_xact_id()::text FROM {s}.owners
WHERE group_id = $1 AND bucket = ANY ($2::int[]) AND member = $3 FOR SHARE
"""
_MOVE = """
UPDATE {s}.progress SET base = $3::text::pg_snapshot, open = $4::text::pg_snapshot, low = $5,
  high = $6, upto = $7, seq = $8, done = $9 WHERE group_id = $1 AND bucket = $2
"""
_CALM = "UPDATE {s}.owners SET crashes = 0 WHERE group_id = $1 AND bucket = ANY ($2::int[])"
_FAIL = """
INSERT INTO {s}.failures (group_id, seq, bucket, failures, first_failure, due)
SELECT $1, u.seq, u.bucket, u.failures, u.first, {s}.now() + u.delay
FROM unnest($2::int8[], $3::int[], $4::int[], $5::float8[], $6::float8[])
  AS u(seq, bucket, failures, first, delay)
ON CONFLICT (group_id, seq) DO UPDATE SET failures = excluded.failures,
  first_failure = excluded.first_failure, due = excluded.due
"""
_FORGET = "DELETE FROM {s}.failures WHERE group_id = $1 AND seq = ANY ($2::int8[])"


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
        self._revoke = revoke
        self._paused = paused
        self._withdraw = withdraw
        #: What `fetch` is about to return.
        self._handed: list[Delivery] = []
        self._loop = asyncio.get_running_loop()
        self._turns = count()
        self._owned: dict[int, Bucket] = {}
        #: What is known of single messages: failures, first failure, due, marks.
        self._known: dict[int, tuple[int, float, float, int]] = {}
        self._balancing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes buckets, and goes on to share them with other members."""
        await self._balance()
        self._balancing = self._loop.create_task(self._keep_balance())

    async def stop(self) -> None:
        """Shares no longer."""
        task, self._balancing = self._balancing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `QueueSource.fetch`."""
        group = self._membership.group
        ((due, next_due, opened, high),) = await self._database.fetch(_STATE, group.id)
        if next_due is not None and next_due > 0:
            self._wake_after(next_due)
        if due:
            await self._claim_waiting(max_messages)
        found: list[Delivery] = []
        self._handed = found
        now = self._loop.time()
        for bucket in self._open_buckets():
            found += bucket.take_returned(now, max_messages - len(found))
            self._wake_at(bucket)
        size = sum(each.size for each in found)
        if len(found) < max_messages and size < max_bytes:
            await self._read(found, max_messages, max_bytes - size)
        if len(found) < max_messages and await self._open((opened, high)):
            await self._read(found, max_messages, max_bytes - size)
        self._loop.call_soon(self._hand_over)  # runs just before the caller gets them
        return found

    def _hand_over(self) -> None:
        self._handed = []

    async def _open(self, state: tuple[str, int]) -> bool:
        """Opens the next batch of buckets, if there may be something in it."""
        behind = [
            each
            for each in self._owned.values()
            if each.exhausted and each.seen != state and not each.leaving
        ]
        if not behind:
            return False
        opening = await positions.open_batch(self._database)
        for bucket in behind:
            if bucket.exhausted:
                bucket.open(opening)
                bucket.seen = state
        return True

    def begin(self, settlements: Sequence[Settlement]) -> None:
        """What is given back goes before the later messages of its lane."""
        for bucket, lane in self._given_back(settlements):
            bucket.settling[lane] = bucket.settling.get(lane, 0) + 1
            self._withdraw_lane(bucket, lane)

    def end(self, settlements: Sequence[Settlement]) -> None:
        """See `Holdings.end`."""
        for bucket, lane in self._given_back(settlements):
            left = bucket.settling.get(lane, 1) - 1
            if left:
                bucket.settling[lane] = left
            else:
                bucket.settling.pop(lane, None)
        self._wake_after(0.0)

    async def lock(
        self, connection: Connection, deliveries: Collection[Delivery]
    ) -> tuple[set[Delivery], str]:
        """See `Holdings.lock`."""
        database, group, member = self._database, self._membership.group, self._membership.id
        numbers = [*{each.receipt.bucket for each in deliveries}]
        rows = await connection.fetch(database.sql(_LOCK), group.id, numbers, member)
        owned = {row[0] for row in rows}
        ids = [each.receipt.id for each in deliveries if isinstance(each.receipt, InWaiting)]
        held, _ = await waiting.lock(database, connection, ids, member)
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
        return found, rows[0][1] if rows else ""

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
        await waiting.settle(database, connection, of_waiting, keep=True)
        if failed:
            await connection.execute(
                database.sql(_FAIL),
                group.id,
                [receipt.seq for receipt, _ in failed],
                [receipt.bucket for receipt, _ in failed],
                [each.failures for _, each in failed],
                [each.first_failure for _, each in failed],
                [each.delay for _, each in failed],
            )
        await self._move(connection, finished)
        now = self._loop.time()

        def committed() -> None:
            self._settled(settlements, finished, now)

        return committed

    async def claimable(self) -> int:
        """See `Availability`."""
        ((found,),) = await self._database.fetch(
            "SELECT count(*) FROM {s}.waiting WHERE group_id = $1 AND member IS NULL "
            "AND due <= {s}.now() AND bucket = ANY ($2::int[])",
            self._membership.group.id,
            [*self._owned],
        )
        now = self._loop.time()
        back = sum(each.due <= now for bucket in self._open_buckets() for each in bucket.returned)
        return int(found) + back

    def clear(self) -> None:
        """Everything was lost."""
        self._owned.clear()
        self._known.clear()

    def mark(self, seq: int, marks: int) -> None:
        """A start mark was written."""
        failures, first, due, _ = self._known.get(seq, (0, 0.0, 0.0, 0))
        self._known[seq] = failures, first, due, marks

    def _holds(self, receipt: InBucket) -> bool:
        bucket = self._owned.get(receipt.bucket)
        return bucket is not None and bucket.holds(receipt.seq)

    def _open_buckets(self) -> list[Bucket]:
        paused = self._paused()
        return [
            each for each in self._owned.values() if not each.leaving and each.number not in paused
        ]

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

        def unwanted(delivery: Delivery) -> bool:
            return delivery.shard == bucket.number and self._lane(delivery) == lane

        for delivery in [each for each in self._handed if unwanted(each)]:
            self._handed.remove(delivery)
            bucket.give_back(delivery, lane)
        for delivery in self._withdraw(unwanted):
            bucket.give_back(delivery, lane)

    async def _claim_waiting(self, most: int) -> None:
        group = self._membership.group
        numbers = [each.number for each in self._open_buckets()]
        async with self._database.transaction(relaxed=True) as connection:
            found = await waiting.claim(
                self._database,
                connection,
                (group.id, group.topic_name),
                self._membership.id,
                most,
                turn=next(self._turns),
                buckets=numbers,
            )
        for delivery in found:
            if (bucket := self._owned.get(int(delivery.shard))) is not None:
                bucket.give_back(delivery, self._lane(delivery))

    async def _read(
        self,
        found: list[Delivery],
        max_messages: int,
        max_bytes: int,
    ) -> None:
        hungry = [
            each for each in self._open_buckets() if not each.exhausted and each.window < _WINDOW
        ]
        while hungry and len(found) < max_messages and max_bytes > 0:
            most = max(1, -(-(max_messages - len(found)) // len(hungry)))
            spots = [bucket.position for bucket in hungry]
            rows = await self._database.fetch(
                positions.READ,
                self._membership.group.topic,
                [bucket.number for bucket in hungry],
                [spot.base for spot in spots],
                [spot.open for spot in spots],
                [spot.low for spot in spots],
                [spot.high for spot in spots],
                [spot.seq for spot in spots],
                most,
            )
            counts: dict[int, int] = {}
            for row in rows:
                counts[row[0]] = counts.get(row[0], 0) + 1
                max_bytes -= self._keep(row, found)
            for bucket in hungry:
                if counts.get(bucket.number, 0) < most:
                    bucket.exhaust()
            hungry = [each for each in hungry if not each.exhausted and each.window < _WINDOW]

    def _keep(self, row: Sequence[Any], found: list[Delivery]) -> int:
        """Takes a row that was read; returns how many bytes of it are handed out."""
        number, seq, wait, *content = row
        bucket = self._owned.get(number)
        if bucket is None or not bucket.read(seq):
            return 0
        delivery = read_delivery(
            self._membership.group.topic_name,
            number,
            seq,
            content,
            receipt=InBucket(number, seq, next(self._turns)),
            deliveries=bucket.crashes + 1,
        )
        due = self._loop.time() + wait if wait > 0 else 0.0
        if seq in self._known:
            delivery.failures, delivery.first_failure, due, marks = self._known[seq]
            delivery.suspect = marks > 0
        lane = self._lane(delivery)
        if due > self._loop.time() or bucket.is_blocked(lane):
            bucket.give_back(delivery, lane, due)
            self._wake_at(bucket)
            return 0
        found.append(delivery)
        return delivery.size

    async def _move(self, connection: Connection, finished: dict[int, set[int]]) -> None:
        """Writes the positions of buckets in which messages are finished."""
        database, group = self._database, self._membership.group.id
        calm, known = [], []
        for number, seqs in finished.items():
            bucket = self._owned[number]
            position, done = bucket.progress(seqs)
            before, _ = bucket.progress(())
            await connection.execute(database.sql(_MOVE), group, number, *position, done)
            if bucket.crashes and position != before:
                calm.append(number)
            known += [seq for seq in seqs if seq in self._known]
        if calm:
            await connection.execute(database.sql(_CALM), group, calm)
        if known:
            await connection.execute(database.sql(_FORGET), group, known)

    def _settled(
        self, settlements: Sequence[Settlement], finished: dict[int, set[int]], now: float
    ) -> None:
        for number, seqs in finished.items():
            bucket = self._owned.get(number)
            if bucket is not None:
                before, _ = bucket.progress(())
                bucket.finish(seqs)
                if bucket.crashes and bucket.progress(())[0] != before:
                    bucket.crashes = 0
            for seq in seqs:
                self._known.pop(seq, None)
        for settlement in settlements:
            if settlement.action is Action.ACK:
                continue
            delivery = settlement.delivery
            bucket = self._owned.get(int(delivery.shard))
            if bucket is None:
                continue
            again = dataclasses.replace(
                delivery,
                receipt=delivery.receipt._replace(turn=next(self._turns)),
                failures=settlement.failures,
                first_failure=settlement.first_failure,
                deliveries=delivery.deliveries + (settlement.action is Action.NACK),
                hop=None,
            )
            due = now + settlement.delay if settlement.action is Action.NACK else 0.0
            if isinstance(again.receipt, InBucket) and settlement.failures:
                marks = self._known.get(again.receipt.seq, (0, 0.0, 0.0, 0))[3]
                self._known[again.receipt.seq] = (
                    settlement.failures,
                    settlement.first_failure,
                    due,
                    marks,
                )
            bucket.give_back(again, self._lane(again), due)

    async def _keep_balance(self) -> None:
        while True:
            await asyncio.sleep(_BALANCE)
            try:
                await self._balance()
            except ProtoflowError as error:
                _log.debug("buckets could not be shared: %s", error)
            except Exception:
                _log.exception("sharing buckets failed")

    async def _balance(self) -> None:
        group, member = self._membership.group.id, self._membership.id
        ((members,),) = await self._database.fetch(_MEMBERS, group)
        share = -(-BUCKETS // max(1, members))
        if len(self._owned) > share:
            await self._give_up([*self._owned.values()][share:])
        elif len(self._owned) < share:
            taken = await self._database.fetch(_TAKE, group, member, share - len(self._owned))
            if taken:
                await self._load(dict(map(tuple, taken)))
                self._wake_after(0.0)

    async def _load(self, crashes: dict[int, int]) -> None:
        """Reads where buckets stand that this member owns from now on."""
        group, now = self._membership.group.id, self._loop.time()
        rows = await self._database.fetch(_PROGRESS, group, [*crashes])
        for _, seq, failures, first, due, marks in await self._database.fetch(
            _FAILURES, group, [*crashes]
        ):
            self._known[seq] = failures, first, now + due, marks
        for number, *position, done in rows:
            self._owned[number] = Bucket(number, Position(*position), done, crashes[number])

    async def _give_up(self, buckets: Sequence[Bucket]) -> None:
        numbers = [bucket.number for bucket in buckets]
        for bucket in buckets:
            bucket.leaving = True
        await self._revoke(numbers)
        for number in numbers:
            self._owned.pop(number, None)
        member = self._membership.id
        async with self._database.transaction() as connection:
            await connection.execute(self._database.sql(_LEAVE_WAITING), member, numbers)
            await connection.execute(
                self._database.sql(_LEAVE), self._membership.group.id, numbers, member
            )
