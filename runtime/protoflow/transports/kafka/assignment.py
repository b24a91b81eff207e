"""Partitions that come and go: drained and committed before they leave, noted when they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalGenerationError, KafkaError, UnknownMemberIdError

from protoflow.spec import Start
from protoflow.transport import SubscriptionListener, SubscriptionSettings
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.note import Note
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.transactions import Transactions

_log = logging.getLogger("protoflow.transports.kafka")
#: Beyond the drain that the runtime was promised: it did not come back in time.
_GRACE = 5.0


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """What a group member is assigned.

    aiokafka takes every partition away at each rebalance and waits for `revoked` to return;
    then it tells the new ones. Reading goes on when `prepare` has looked up their notes.

    Attributes:
        partitions: the partitions being read, by topic and partition.
        generation: counts the revocations; what was read before one is stale after it.
        prepared: `partitions` is the assignment.
    """

    def __init__(
        self,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        consumer: AIOKafkaConsumer,
        groups: Groups,
        commits: Commits,
        make: Callable[[TopicPartition, int, Note | None], Partition],
        withdraw: Callable[[], None],
        transactions: Transactions | None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._consumer = consumer
        self._groups = groups
        self._commits = commits
        self._make = make
        self._withdraw = withdraw
        self._transactions = transactions
        self._assigned: frozenset[TopicPartition] | None = None
        self._changed = asyncio.Event()
        self._astray = False
        self.partitions: dict[TopicPartition, Partition] = {}
        self.generation = 0
        self.prepared = asyncio.Event()

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, revoked: Collection[TopicPartition]
    ) -> None:
        """Drains and commits: whoever gets the partitions next starts after this returned."""
        self.generation += 1
        self.prepared.clear()
        self._assigned = None
        self._changed.clear()
        self._withdraw()
        partitions = list(self.partitions.values())
        if not partitions:
            return
        for partition in partitions:
            partition.leaving = True
        drain = 0.0 if await self._is_evicted(partitions) else self._settings.rebalance_drain
        try:
            async with asyncio.timeout(drain + _GRACE):
                await self._listener.shards_revoked([item.shard for item in partitions], drain)
                if self._transactions is not None:
                    await self._transactions.quiet()
            await self._commits.commit(partitions, clean=True)
        except COMMIT_ERRORS as error:
            _log.info(
                "partitions left without their last commit; their messages may come again",
                extra={"subscription": self._settings.name, "error": repr(error)},
            )
        finally:
            for partition in partitions:
                partition.live = False
            self.partitions.clear()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Remembers them for `prepare`."""
        self._assigned = frozenset(assigned)
        self._changed.set()

    async def _is_evicted(self, partitions: Collection[Partition]) -> bool:
        """Commits what there is; whether the group has put us out, so others work already."""
        if self._transactions is not None:
            return False  # fenced by their ids: what the others have is not ours to commit
        try:
            await self._commits.commit(partitions)
        except COMMIT_ERRORS as error:
            return isinstance(error.__cause__, UnknownMemberIdError | IllegalGenerationError)
        return False

    def read_astray(self) -> None:
        """Records of an assignment not yet prepared were read: they are to be read again."""
        self._astray = True

    async def prepare(self) -> None:
        """Waits for an assignment, then looks up where to start and writes that it starts."""
        await self._changed.wait()
        generation, assigned = self.generation, self._assigned
        if assigned is None:
            return
        if self._transactions is not None:
            # First, so that no earlier owner commits after the positions were looked up.
            await self._transactions.take(assigned)
        committed = await self._groups.committed(self._settings.group, assigned)
        starts = await self._starts(assigned - committed.keys())
        if generation != self.generation:
            return
        partitions = {tp: self._make(tp, *place) for tp, place in (committed | starts).items()}
        for tp, partition in partitions.items():
            if self._astray or tp in starts:
                self._consumer.seek(tp, partition.position)
        self._astray = False
        await self._judge(partitions)
        # Before the first handler: should it kill the process, the next one knows.
        await self._commits.commit(list(partitions.values()))
        if generation == self.generation:
            self.partitions.update(partitions)
            self.prepared.set()

    async def _starts(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, Note | None]]:
        """Where partitions without a position start; a retry topic is never skipped."""
        latest = [
            tp
            for tp in tps
            if self._settings.start is Start.LATEST and tp.topic == self._groups.main_topic
        ]
        offsets = await self._consumer.end_offsets(latest) if latest else {}
        earliest = [tp for tp in tps if tp not in offsets]
        if earliest:
            offsets |= await self._consumer.beginning_offsets(earliest)
        return {tp: (offset, None) for tp, offset in offsets.items()}

    async def _judge(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Is careful with partitions whose starts ended badly, if there was work in them."""
        suspicious = [tp for tp, item in partitions.items() if item.is_suspicious]
        ends = await self._consumer.end_offsets(suspicious) if suspicious else {}
        for tp, end in ends.items():
            if end <= partitions[tp].watermark:
                partitions[tp].trust()
            else:
                partitions[tp].begin_careful(self._settings.max_in_flight)
                _log.warning(
                    "a partition was started repeatedly without an end: one message at a time",
                    extra={"subscription": self._settings.name, "partition": str(tp)},
                )


#: What `prepare` may fail with and be tried again after.
PREPARE_ERRORS = (KafkaError, TimeoutError)
