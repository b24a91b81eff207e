"""Moves messages that wait long out of crowded buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from protoflow.transports.postgresql import progress, waiting
from protoflow.transports.postgresql.bucket import Bucket, Returned
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InBucket
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.turn import Turn

#: A bucket with this many unfinished messages is crowded.
CROWDED = 256
#: Messages that are due within this many seconds are not moved.
_SOON = 5.0
#: The highest number of messages that one transaction moves.
_MOST = 1000


class WaitingMoves:
    """Copies messages that wait long into the table `waiting`.

    A bucket remembers a limited number of unfinished messages. After the copy, a waiting message
    delays only the later messages of its lane.

    Args:
        turn: the turn to write positions.
    """

    def __init__(self, database: Database, membership: Membership, turn: Turn) -> None:
        self._database = database
        self._membership = membership
        self._turn = turn
        self._loop = asyncio.get_running_loop()

    async def move(self, buckets: Collection[Bucket]) -> bool:
        """Moves messages that wait long in crowded buckets. Returns whether there were any. Raises
        TransportError."""
        now = self._loop.time()
        chosen = _chosen(buckets, now + _SOON)
        if not chosen:
            return False
        await self._write(chosen, now)
        return True

    async def _write(self, chosen: Mapping[Bucket, Sequence[Returned]], now: float) -> None:
        """Copies messages, and finishes the originals."""
        kept: dict[Bucket, Sequence[Returned]] = {}
        finished = ""
        async with AsyncExitStack() as turn:
            try:
                async with self._membership.claiming() as (connection, xid):
                    await turn.enter_async_context(self._turn.taken())
                    numbers = {bucket.number for bucket in chosen}
                    owned, _ = await self._membership.lock_owned(connection, numbers)
                    kept = {each: chosen[each] for each in chosen if each.number in owned}
                    await self._copy(connection, kept, now)
                    finished = xid
            except BaseException:
                self._turn.unanswered(finished, partial(_moved, kept))
                raise
            _moved(kept)

    async def _copy(
        self, connection: Connection, kept: Mapping[Bucket, Sequence[Returned]], now: float
    ) -> None:
        database, group = self._database, self._membership.group
        delayed = [(each.delivery, each.due - now) for some in kept.values() for each in some]
        await waiting.move(database, connection, (group.id, group.topic), delayed)
        seqs = {bucket: {each.position for each in some} for bucket, some in kept.items()}
        await progress.forget(database, connection, group.id, [*set().union(*seqs.values())])
        await progress.move(database, connection, group.id, seqs)


def _chosen(buckets: Collection[Bucket], later: float) -> dict[Bucket, Sequence[Returned]]:
    """Returns the messages in crowded buckets that are due after `later`."""
    chosen: dict[Bucket, Sequence[Returned]] = {}
    room = _MOST
    for bucket in buckets:
        if bucket.window < CROWDED or bucket.leaving or room <= 0:
            continue
        found = [
            each
            for each in bucket.returned
            if each.due > later
            and isinstance(each.delivery.receipt, InBucket)
            and not each.delivery.suspect
        ][:room]
        if found:
            chosen[bucket] = found
            room -= len(found)
    return chosen


def _moved(moved: Mapping[Bucket, Sequence[Returned]]) -> None:
    for bucket, some in moved.items():
        bucket.put_aside(some)
