"""The assigned partitions of a group member: loads them, and drains and commits them later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalGenerationError, UnknownMemberIdError

from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.start_positions import StartPositions
from protoflow.transports.kafka.transactions import Transactions

_log = logging.getLogger("protoflow.transports.kafka")
#: Seconds of patience beyond the drain, in case the runtime does not return in time.
_GRACE = 5.0


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """The partitions that are assigned to a group member.

    At each rebalance, aiokafka revokes every partition, waits for `on_partitions_revoked`, and then
    assigns new ones. Reading continues after `prepare` has loaded their positions.

    Attributes:
        generation: the number of revocations; records that were read before the last one are stale.
        prepared: set while the positions of all assigned and subscribed partitions are loaded.
        assigned: the assignment; None between two assignments.
    """

    def __init__(
        self,
        member: GroupMember,
        positions: StartPositions,
        commits: Commits,
        transactions: Transactions,
    ) -> None:
        self._member = member
        self._partitions = member.partitions
        self._positions = positions
        self._commits = commits
        self._transactions = transactions
        self._changed = asyncio.Event()
        self._astray = False
        self.assigned: frozenset[TopicPartition] | None = None
        self.generation = 0
        self.prepared = asyncio.Event()

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, revoked: Collection[TopicPartition]
    ) -> None:
        """Drains and commits; the next owner of the partitions starts after this has returned."""
        self.assigned = None
        self._changed.clear()
        partitions = list(self._partitions.values())
        evicted = bool(partitions) and await self._is_evicted(partitions)
        await self.give_up(drains=not evicted)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Stores the assignment for `prepare`."""
        self.assigned = frozenset(assigned)
        self.prepare_again()

    def prepare_again(self) -> None:
        """Requests that the partitions of the current assignment are prepared again."""
        if self.assigned is None:
            return
        self.prepared.clear()
        self._changed.set()
        self._member.wakeup.wake()

    async def give_up(self, *, drains: bool) -> None:
        """Gives up all partitions: waiting jobs are dropped, and running handlers may finish."""
        self.generation += 1
        self.prepared.clear()
        partitions = list(self._partitions.values())
        for partition in partitions:
            partition.leaving = True
        consumptions = {partition.consumption for partition in partitions}
        for consumption in consumptions:
            consumption.ready.clear()
        if not partitions:
            return
        try:
            drain = (
                max(consumption.settings.rebalance_drain for consumption in consumptions)
                if drains
                else 0.0
            )
            async with asyncio.timeout(drain + _GRACE):
                await asyncio.gather(
                    *(_revoke(consumption, drains=drains) for consumption in consumptions)
                )
                await self._transactions.quiet()
            await self._commits.commit(partitions, clean=True)
        except Exception as error:  # whatever the error is, the partitions leave
            _log.info(
                "partitions moved without their last commit; their messages may be redelivered",
                extra={"group": self._member.group, "error": repr(error)},
            )
            self._positions.keep(partitions)
        finally:
            self.drop(partitions)

    def drop(self, partitions: Collection[Partition]) -> None:
        """Drops partitions that this process has lost."""
        for partition in partitions:
            partition.live = False
            self._partitions.pop(partition.tp, None)
            partition.consumption.partitions.pop(partition.tp, None)
        for consumption in {partition.consumption for partition in partitions}:
            consumption.commit_is_confirmed()  # the late partition may have left

    async def _is_evicted(self, partitions: Collection[Partition]) -> bool:
        """Commits the progress; returns whether the group has removed this member."""
        if any(partition.atomic for partition in partitions):
            return False  # the ids fence this process: it may not commit for the new owners
        try:
            await self._commits.commit(partitions)
        except COMMIT_ERRORS as error:
            return isinstance(error.__cause__, UnknownMemberIdError | IllegalGenerationError)
        return False

    def read_astray(self) -> None:
        """Handles records of an unprepared assignment, which must be read again."""
        self._astray = True

    async def until_prepared(self, reader: asyncio.Task[None]) -> bool:
        """Waits until everything is prepared; returns False if the reader ended before."""
        waiting = asyncio.ensure_future(self.prepared.wait())
        try:
            await asyncio.wait((waiting, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return self.prepared.is_set()

    async def prepare(self) -> None:
        """Waits for an assignment, then loads its start positions and records the start."""
        await self._changed.wait()
        self._changed.clear()
        generation, assigned = self.generation, self.assigned
        if assigned is None:
            return
        try:
            await self._prepare(generation, assigned)
        except BaseException:
            self._changed.set()  # the attempt is repeated
            raise

    async def _prepare(self, generation: int, assigned: frozenset[TopicPartition]) -> None:
        consumptions: dict[TopicPartition, Consumption] = {}
        for tp in assigned - self._partitions.keys():
            consumption = self._member.consumption_of(tp.topic)
            if consumption is not None:
                consumptions[tp] = consumption
        # This comes first, so that no earlier owner commits after the positions are loaded.
        await self._transactions.take(
            {tp for tp, consumption in consumptions.items() if consumption.is_atomic}
        )
        partitions = await self._positions.load(consumptions)
        if generation != self.generation or assigned is not self.assigned:
            self._changed.set()
            return
        # aiokafka loaded the positions itself, possibly before the previous owner had ended.
        for tp, partition in partitions.items():
            self._member.consumer.seek(tp, partition.position)
        if self._astray:
            for tp, partition in self._partitions.items():
                self._member.consumer.seek(tp, partition.position)
        self._astray = False
        # This is written before the first handler runs: if it kills the process, the next one
        # knows.
        await self._commits.commit(list(partitions.values()))
        if generation != self.generation:
            return
        self._take(partitions)

    def _take(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        for tp, partition in partitions.items():
            self._partitions[tp] = partition
            partition.consumption.partitions[tp] = partition
        self._positions.forget(partitions)
        if not self._changed.is_set():
            self.prepared.set()


async def _revoke(consumption: Consumption, *, drains: bool) -> None:
    drain = consumption.settings.rebalance_drain if drains else 0.0
    shards = [partition.shard for partition in consumption.partitions.values()]
    await consumption.listener.shards_revoked(shards, drain)
