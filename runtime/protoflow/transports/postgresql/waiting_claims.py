"""Claiming what waits for a member of an ordered group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from protoflow.message import Delivery
from protoflow.transports.postgresql import waiting
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.doubt import Doubt
from protoflow.transports.postgresql.members import Membership


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
        """Everything was lost."""
        self._doubt.clear()

    async def claim(self, most: int, buckets: Sequence[int], positions: Sequence[int]) -> None:
        """Claims up to so many rows of buckets, and at positions. Raises TransportError."""
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
