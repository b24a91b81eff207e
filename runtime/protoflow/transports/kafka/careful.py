"""Handing out one message at a time, each noted before it starts.

After repeated unclean starts some message of the window kills the process. Alone, and on
record, it is found: the next start reads from the note which one it was and how often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiokafka import TopicPartition

from protoflow.message import Delivery
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.partition import Partition

_RETRY = 0.5


class Careful:
    """Hands out the backlog of suspicious partitions, one message of them all at a time."""

    def __init__(
        self,
        partitions: Mapping[TopicPartition, Partition],
        commits: Commits,
        inbox: Inbox,
        flow: Callable[[Partition], None],
        due: Callable[[Partition], bool],
    ) -> None:
        self._partitions = partitions
        self._commits = commits
        self._inbox = inbox
        self._flow = flow
        self._due = due
        self._changed = asyncio.Event()
        self._alone: tuple[Partition, int] | None = None

    def notice(self) -> None:
        """Something arrived, was settled or moved."""
        self._changed.set()

    async def run(self) -> None:
        """Works for ever; idle where nothing is suspicious."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._alone is not None and not self._is_over(*self._alone):
                continue
            self._alone = None
            for partition in list(self._partitions.values()):
                if partition.careful_until and await self._serve(partition):
                    break

    def _is_over(self, partition: Partition, offset: int) -> bool:
        return not partition.live or partition.watermark > offset

    async def _serve(self, partition: Partition) -> bool:
        """Hands out the next message of a partition; False if there is none, or no need."""
        if partition.watermark >= partition.careful_until:
            partition.careful_until = 0
            partition.dirty = True
            self._flow(partition)
            return False
        if partition.paused or partition.leaving or not self._due(partition):
            return False
        delivery = partition.backlog.popleft()
        again = partition.suspect == delivery.position
        partition.count = partition.count + 1 if again else 1
        partition.suspect = int(delivery.position)
        await self._note(partition)
        if not partition.live or partition.leaving:
            return False
        delivery.deliveries = partition.count
        self._alone = (partition, partition.suspect)
        self._inbox.put([delivery])
        return True

    async def _note(self, partition: Partition) -> None:
        while partition.live and not partition.leaving:
            try:
                await self._commits.commit([partition])
            except COMMIT_ERRORS:
                await asyncio.sleep(_RETRY)
            else:
                return

    def given_back(self, delivery: Delivery) -> bool:
        """Whether a released delivery is the one that is out alone; then it waits here."""
        partition = delivery.receipt
        if self._alone != (partition, delivery.position):
            return False
        partition.backlog.appendleft(delivery)
        partition.count -= 1
        self._alone = None
        self.notice()
        return True
