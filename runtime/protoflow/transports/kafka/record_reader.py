"""The loop that reads records, and reports its end in every case."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    UnsupportedCodecError,
)

from protoflow.error_codes import POSITION_LOST
from protoflow.errors import TransportError
from protoflow.transport.kit.backoff import Backoff
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.records import deliveries, mark_unreadable
from protoflow.transports.kafka.unreadable_records import Unreadable

_log = logging.getLogger("protoflow.transports.kafka")
#: Milliseconds of one poll, after which a new assignment is noticed.
_LOOK_MS = 250
_BATCH = 500
#: Seconds between two attempts after a failure: the first, and the longest.
_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class RecordReader:
    """Reads records for subscriptions that have handed out their earlier records.

    aiokafka prefetches records and sends heartbeats in the background. It would leave the group of
    a consumer that is not polled while handlers are slow, so `consumers` disables this limit.
    """

    def __init__(
        self, member: GroupMember, assignment: Assignment | None, unreadable: Unreadable
    ) -> None:
        self._member = member
        self._consumer = member.consumer
        self._partitions = member.partitions
        self._assignment = assignment
        self._unreadable = unreadable
        self._on_lost_position = member.context.settings.on_lost_position
        self._ill = False

    async def run(self) -> None:
        """Reads until cancelled: a failure may be temporary, so it is only reported. Raises
        TransportError if positions have become invalid."""
        backoff = Backoff(_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                await self._turn_or_relocate()
            except (ConsumerStoppedError, TransportError):
                raise
            except Exception as error:
                self._report(error)
                self._read_again()
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            if self._ill:
                self._ill = False
                self._member.report("reading", None)

    def _read_again(self) -> None:
        """Reads records again that aiokafka lost in a failure; they would otherwise be skipped."""
        for tp, partition in self._partitions.items():
            with contextlib.suppress(KafkaError):  # the partition has moved away
                self._consumer.seek(tp, partition.position)

    def _report(self, error: Exception) -> None:
        self._ill = True
        self._member.report("reading", f"reading failed: {_reason(error)}")
        if not isinstance(error, KafkaError | TimeoutError | OSError):
            _log.error("reading failed", exc_info=error)

    async def _turn_or_relocate(self) -> None:
        try:
            await self._turn()
        except OffsetOutOfRangeError as error:
            await self._lost_position(error.args[0])
        except NoOffsetForPartitionError:
            pass  # the record was read before `prepare` set the position

    async def _turn(self) -> None:
        assignment = self._assignment
        if assignment is not None and not assignment.prepared.is_set():
            await assignment.prepare()
            return
        generation = assignment.generation if assignment else 0
        left_out = await self._left_out()
        if not self._is_prepared:
            return
        found = await self._look(left_out)
        if assignment is None:
            self._accept(found)
        elif assignment.generation == generation and assignment.prepared.is_set():
            self._accept(found)
            if not found:
                await self._skip_empty_offsets()
        elif found:
            assignment.read_astray()

    @property
    def _is_prepared(self) -> bool:
        return self._assignment is None or self._assignment.prepared.is_set()

    async def _left_out(self) -> Collection[TopicPartition]:
        """Returns the partitions that must not be read now."""
        consumptions = [each for each in self._member.consumptions if each.open]
        busy = False
        while consumptions:
            empty = [consumption for consumption in consumptions if consumption.ready.is_empty]
            busy = len(empty) < len(consumptions)
            if empty or not self._is_prepared:
                break
            await self._member.wakeup.next_wake()
        left_out = [
            tp
            for tp, partition in self._partitions.items()
            if partition.resting or (busy and not partition.consumption.ready.is_empty)
        ]
        assignment = self._assignment
        if assignment is not None and len(self._partitions) < len(assignment.assigned or ()):
            # Partitions that no subscription uses yet, or uses any more.
            left_out += (assignment.assigned or frozenset()).difference(self._partitions)
        return left_out

    async def _look(
        self, left_out: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """Polls the other partitions once."""
        if not left_out:
            found: Mapping[TopicPartition, Sequence[ConsumerRecord]]
            found = await self._consumer.getmany(timeout_ms=_LOOK_MS, max_records=_BATCH)
            return found
        roused = self._member.wakeup.next_wake()
        wanted = self._consumer.assignment().difference(left_out)
        if not wanted:
            await asyncio.wait((roused,), timeout=_LOOK_MS / 1000)
            return {}
        # If this wait is cancelled, no records are lost.
        reading = self._consumer.getmany(*wanted, timeout_ms=_LOOK_MS, max_records=_BATCH)
        looking = asyncio.ensure_future(reading)
        try:
            await asyncio.wait((looking, roused), return_when=asyncio.FIRST_COMPLETED)
        finally:
            looking.cancel()
        await asyncio.wait((looking,))
        return {} if looking.cancelled() else looking.result()

    def _accept(self, found: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        for tp, records in found.items():
            partition = self._partitions.get(tp) or self._make(tp, records[0].offset)
            if partition is None:
                continue
            consumption: Consumption = partition.consumption
            read = deliveries(partition, records, consumption.settings.topic)
            if self._unreadable:
                mark_unreadable(read, self._unreadable.take(tp))
            consumption.flow_control.accept(partition, read)

    def _make(self, tp: TopicPartition, offset: int) -> Partition | None:
        """Creates a partition of a broadcast; assignments create those of groups."""
        consumption = self._member.consumption_of(tp.topic)
        if consumption is None or self._assignment is not None:
            return None
        partition = self._partitions[tp] = consumption.partitions[tp] = consumption.make(tp, offset)
        return partition

    async def _skip_empty_offsets(self) -> None:
        """Skips the offsets of transaction ends, which must not count as lag."""
        for tp, partition in list(self._partitions.items()):
            if not partition.unfinished and partition.live and not partition.resting:
                partition.advance(await self._consumer.position(tp))

    async def _lost_position(self, lost: Mapping[TopicPartition, int]) -> None:
        where = ", ".join(f"{tp.topic}[{tp.partition}] at {at}" for tp, at in lost.items())
        if self._on_lost_position == "stop" and self._assignment is not None:
            error = TransportError(
                f"kafka: the position is lost ({where}): messages were deleted before they were"
                " read; set on_lost_position to earliest or latest, or set the group's offsets",
                code=POSITION_LOST,
            )
            for topic in {tp.topic for tp in lost}:
                self.end(topic, error)
            return
        tps = list(lost)
        if self._on_lost_position == "earliest":
            places = await self._consumer.beginning_offsets(tps)
        else:
            places = await self._consumer.end_offsets(tps)
        for tp, offset in places.items():
            await self.relocate(tp, offset)
        _log.warning("a position was lost and was reset", extra={"lost": where})

    def end(self, topic: str, error: TransportError) -> None:
        """Ends the subscription of a topic permanently; others continue."""
        consumption = self._member.consumption_of(topic)
        if consumption is not None and self._assignment is not None:
            self._assignment.drop(list(consumption.partitions.values()))
            consumption.fail(error)

    async def relocate(self, tp: TopicPartition, offset: int) -> None:
        """Reads a partition from another position. Unsettled messages belong to the old
        position."""
        partition = self._partitions.get(tp)
        if partition is not None:
            partition.live = False
            partition.leaving = True
            consumption: Consumption = partition.consumption
            consumption.ready.withdraw(partition)
            await consumption.listener.shards_revoked([partition.shard], 0.0)
            if self._partitions.get(tp) is not partition:
                return  # the partition moved away meanwhile
            anew = consumption.make(tp, offset)
            anew.topic, anew.initial_partitions, anew.dirty = (
                partition.topic,
                partition.initial_partitions,
                True,
            )
            self._partitions[tp] = consumption.partitions[tp] = anew
        self._consumer.seek(tp, offset)


def _reason(error: Exception) -> str:
    if isinstance(error, UnsupportedCodecError):
        return f"{error}; install the package that the codec needs"
    if isinstance(error, RecordTooLargeError):
        return "a message is above max_partition_fetch_bytes; raise it"
    return type(error).__name__
