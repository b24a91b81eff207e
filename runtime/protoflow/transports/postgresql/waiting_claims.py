"""Claims waiting messages for a member of an ordered group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from protoflow.message import Delivery
from protoflow.transports.postgresql import waiting
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.doubt import Doubt
from protoflow.transports.postgresql.holdings import InWaiting
from protoflow.transports.postgresql.members import Membership

#: The highest number of claimed rows that may wait in a bucket for others of their lane.
_MOST_CLAIMED = 2000
_NEXT = """
SELECT min(due) - {s}.now(), pg_postmaster_start_time()::text
FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
  AND (bucket = ANY ($2::int[]) OR coalesce(seq, id) = ANY ($3::int8[]))
"""


class WaitingClaims:
    """Claims rows that are due in buckets of the member.

    Args:
        turns: gives each claim a number of its own.
        claimed: gets each delivery.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        turns: Iterator[int],
        claimed: Callable[[Delivery], None],
    ) -> None:
        self._database = database
        self._membership = membership
        self._turns = turns
        self._claimed = claimed
        self._doubt = Doubt(database)

    async def resolve(self) -> None:
        """Finds out what came of a claim that was not answered. Raises TransportError."""
        await self._doubt.resolve()

    def clear(self) -> None:
        """Forgets everything, because the membership was lost."""
        self._doubt.clear()

    async def claim(self, most: int, buckets: Sequence[Bucket]) -> float | None:
        """Claims up to `most` rows of buckets that are due. If no row is due, returns the seconds
        until the next one is; None if no row waits. Raises TransportError."""
        roomy, positions = _to_claim(buckets)
        group = self._membership.group.id
        ((next_due, server),) = await self._database.fetch(_NEXT, group, roomy, positions)
        self._membership.check_server(server)
        if next_due is None or next_due > 0:
            return None if next_due is None else float(next_due)
        await self._claim(most, roomy, positions)
        return None

    async def _claim(self, most: int, buckets: Sequence[int], positions: Sequence[int]) -> None:
        """Claims rows of buckets, and at positions."""
        group, member = self._membership.group, self._membership.id
        turn = next(self._turns)
        found: list[Delivery] = []
        finished = ""
        try:
            async with self._membership.claiming() as (connection, xid):
                found = await waiting.claim(
                    self._database,
                    connection,
                    (group.id, group.topic_name),
                    member,
                    most,
                    turn=turn,
                    buckets=buckets,
                    positions=positions,
                )
                finished = xid
        except BaseException:
            if finished:  # it came so far, so it may be committed
                self._doubt.set(finished, partial(self._hand_over, found))
            raise
        self._hand_over(found)

    def _hand_over(self, found: Sequence[Delivery]) -> None:
        for delivery in found:
            self._claimed(delivery)


def _to_claim(buckets: Sequence[Bucket]) -> tuple[list[int], list[int]]:
    """Returns the buckets with room for claimed rows, and for full buckets the positions of rows
    that claimed rows wait for."""

    def claimed(bucket: Bucket) -> int:
        returned = (each.delivery.receipt for each in bucket.returned)
        return len(bucket.ahead) + sum(isinstance(each, InWaiting) for each in returned)

    full = [each for each in buckets if claimed(each) >= _MOST_CLAIMED]
    roomy = [each.number for each in buckets if each not in full]
    return roomy, [position for each in full for position in each.blocking()]
