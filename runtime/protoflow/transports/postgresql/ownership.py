"""Which buckets a member owns: a fair share, handed over between handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

from protoflow.contract.spec import Ordering
from protoflow.errors import ProtoflowError
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Position
from protoflow.transports.postgresql.schema import BUCKETS

_log = logging.getLogger("protoflow.transports.postgresql")
#: Seconds between two looks at who else is in the group.
_BALANCE = 0.5
_MEMBERS = """
SELECT (SELECT count(*) FROM {s}.members WHERE group_id = $1 AND until >= {s}.now()),
  (SELECT count(*) FROM {s}.owners WHERE group_id = $1 AND member = $2)
"""
_TAKE = """
UPDATE {s}.owners o SET member = $2 FROM (
  SELECT bucket FROM {s}.owners WHERE group_id = $1 AND member IS NULL
  ORDER BY bucket LIMIT $3 FOR UPDATE SKIP LOCKED) free
WHERE o.group_id = $1 AND o.bucket = free.bucket
"""
_HELD = "SELECT bucket, crashes FROM {s}.owners WHERE group_id = $1 AND member = $2"
_PROGRESS = """
SELECT bucket, base::text, open::text, low, high, upto, seq, done FROM {s}.progress
WHERE group_id = $1 AND bucket = ANY ($2::int[])
"""
_FAILURES = """
SELECT bucket, seq, failures, first_failure, due - {s}.now(), marks FROM {s}.failures
WHERE group_id = $1 AND bucket = ANY ($2::int[])
"""
_ASIDE = """
SELECT bucket, lane, array_agg(position ORDER BY position) FROM (
  SELECT bucket, CASE WHEN $3 THEN '' ELSE key END AS lane, coalesce(seq, id) AS position
  FROM {s}.waiting WHERE group_id = $1 AND bucket = ANY ($2::int[]) AND member IS NULL
    AND ($3 OR key <> '')) AS row
GROUP BY bucket, lane
"""
_LEAVE = """
UPDATE {s}.owners SET member = NULL, crashes = 0
WHERE group_id = $1 AND bucket = ANY ($2::int[]) AND member = $3
"""
_LEAVE_WAITING = """
UPDATE {s}.waiting SET member = NULL, deliveries = deliveries - 1
WHERE member = $1 AND bucket = ANY ($2::int[])
"""


class Known(NamedTuple):
    """What is known of a single message: failed runs, when it is due, start marks."""

    failures: int
    first_failure: float
    due: float
    marks: int


class Ownership:
    """The buckets of a member, in memory.

    Args:
        took: called when buckets were taken.
        revoke: lets the handlers of buckets finish, and takes back what they did not settle.

    Attributes:
        buckets: the buckets by number.
        known: what is known of single messages of them.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        took: Callable[[], None],
        revoke: Callable[[Collection[int]], Awaitable[None]],
    ) -> None:
        self.buckets: dict[int, Bucket] = {}
        self.known: dict[int, Known] = {}
        self._database = database
        self._membership = membership
        self._took = took
        self._revoke = revoke
        self._loop = asyncio.get_running_loop()
        self._balancing: asyncio.Task[None] | None = None
        #: How often all buckets were lost.
        self._cleared = 0

    async def start(self) -> None:
        """Takes buckets, and goes on to share them with other members."""
        await self._balance()
        self._balancing = self._loop.create_task(self._keep_balance())

    async def stop(self) -> None:
        """Shares no longer."""
        task = self._balancing
        self.abort()
        if task is not None:
            await asyncio.wait([task])  # a gather would wait for what it cancels

    def abort(self) -> None:
        """Shares no longer, and waits for nothing."""
        if self._balancing is not None:
            self._balancing.cancel()
            self._balancing = None

    def clear(self) -> None:
        """Handles the loss of all buckets."""
        for bucket in self.buckets.values():
            bucket.lost = True
        self.buckets.clear()
        self.known.clear()
        self._cleared += 1

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
        ((members, owned),) = await self._database.fetch(_MEMBERS, group, member)
        share = -(-BUCKETS // max(1, members))
        if len(self.buckets) > share:
            await self._give_up([*self.buckets.values()][share:])
        elif len(self.buckets) < max(share, owned):
            async with self._membership.claiming() as (connection, _):
                member, cleared = self._membership.id, self._cleared  # it may have joined again
                sql, missing = self._database.sql, max(0, share - len(self.buckets))
                await connection.execute(sql(_TAKE), group, member, missing)
                held = await connection.fetch(sql(_HELD), group, member)
                # Also those of an attempt to take or to leave that failed halfway.
                taken = {number: crashes for number, crashes in held if number not in self.buckets}
                await connection.execute(sql(_LEAVE_WAITING), member, [*taken])
            if taken:
                await self._load(cleared, taken)

    async def _load(self, cleared: int, crashes: dict[int, int]) -> None:
        """Reads where buckets stand that the member owns from now on."""
        group, now = self._membership.group.id, self._loop.time()
        rows = await self._database.fetch(_PROGRESS, group, [*crashes])
        failures = await self._database.fetch(_FAILURES, group, [*crashes])
        whole = self._membership.group.ordering is Ordering.PER_PARTITION
        aside = await self._database.fetch(_ASIDE, group, [*crashes], whole)
        if self._cleared != cleared:
            return  # the lease ended meanwhile
        for _, seq, failed, first, due, marks in failures:
            self.known[seq] = Known(failed, first, now + due, marks)
        for number, *position, done in rows:
            self.buckets[number] = Bucket(number, Position(*position), done, crashes[number])
        for number, lane, places in aside:
            self.buckets[number].aside[lane] = places
        self._took()

    async def _give_up(self, buckets: Sequence[Bucket]) -> None:
        numbers = [bucket.number for bucket in buckets]
        for bucket in buckets:
            bucket.leaving = True
        try:
            await self._revoke(numbers)
        except BaseException:
            for bucket in buckets:
                bucket.leaving = False
            raise
        for number in numbers:
            if (gone := self.buckets.pop(number, None)) is not None:
                gone.lost = True
        member = self._membership.id
        async with self._database.transaction() as connection:
            await connection.execute(self._database.sql(_LEAVE_WAITING), member, numbers)
            await connection.execute(
                self._database.sql(_LEAVE), self._membership.group.id, numbers, member
            )
