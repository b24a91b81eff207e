"""The loop that reads: it never ends in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)

from protoflow.errors import TransportError
from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.errors import is_denied, transport_error
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.intake import Intake
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.records import deliveries

_log = logging.getLogger("protoflow.transports.kafka")
#: How long one look for records lasts; a new assignment is noticed after it at the latest.
_LOOK_MS = 250
_BATCH = 500
_PAUSE = 0.5
#: Failures in a row after which reading is given up.
_PATIENCE = 60


class Reader:
    """Reads whenever everything read before was handed out.

    aiokafka prefetches beneath, and heartbeats by itself; its idle clock, which would evict
    a consumer whose handlers are slow, is set out of reach where the consumer is made.
    """

    def __init__(
        self,
        settings: SubscriptionSettings,
        consumer: AIOKafkaConsumer,
        assignment: Assignment | None,
        partitions: dict[TopicPartition, Partition],
        inbox: Inbox,
        intake: Intake,
        *,
        make: Callable[[TopicPartition, int], Partition],
        on_lost_position: str,
        health_changed: Callable[[str | None], None],
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._assignment = assignment
        self._partitions = partitions
        self._inbox = inbox
        self._intake = intake
        self._make = make
        self._on_lost_position = on_lost_position
        self._health_changed = health_changed

    async def run(self) -> None:
        """Reads until cancelled. Raises TransportError when it can never go on."""
        failures = 0
        while True:
            try:
                await self._turn()
            except (ConsumerStoppedError, TransportError):
                raise
            except OffsetOutOfRangeError as error:
                await self._lost_position(error.args[0])
            except NoOffsetForPartitionError:
                pass  # read before `prepare` set it
            except RecordTooLargeError as error:
                raise self._fatal("a message is above max_partition_fetch_bytes") from error
            except (KafkaError, TimeoutError) as error:
                failures += 1
                if is_denied(error) or failures > _PATIENCE:
                    raise transport_error(error, "consuming", self._settings.name) from error
                self._health_changed(f"reading failed: {type(error).__name__}")
                await asyncio.sleep(_PAUSE)
                continue
            failures = 0
            self._health_changed(None)

    async def _turn(self) -> None:
        assignment = self._assignment
        if assignment is not None and not assignment.prepared.is_set():
            await assignment.prepare()
            return
        generation = assignment.generation if assignment else 0
        await self._inbox.wait_empty()
        found = await self._look()
        if assignment is None:
            self._accept(found)
        elif assignment.generation == generation and assignment.prepared.is_set():
            self._accept(found)
            if not found:
                await self._skip_empty_offsets()
        elif found:
            assignment.read_astray()

    async def _look(self) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """What there is of the partitions that do not rest, waiting a while for it."""
        roused = self._intake.rousing()
        resting = [tp for tp, partition in self._partitions.items() if partition.resting]
        wanted = self._consumer.assignment().difference(resting)
        if resting and not wanted:
            await asyncio.wait((roused,), timeout=_LOOK_MS / 1000)
            return {}
        reading = self._consumer.getmany(
            *(wanted if resting else ()), timeout_ms=_LOOK_MS, max_records=_BATCH
        )
        if not resting:
            found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await reading
            return found
        # Cancelled while it waits, it has taken nothing.
        looking = asyncio.ensure_future(reading)
        try:
            await asyncio.wait((looking, roused), return_when=asyncio.FIRST_COMPLETED)
        finally:
            looking.cancel()
        await asyncio.wait((looking,))
        return {} if looking.cancelled() else looking.result()

    def _accept(self, found: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        for tp, records in found.items():
            partition = self._partitions.get(tp)
            if partition is None:
                partition = self._partitions[tp] = self._make(tp, records[0].offset)
            self._intake.accept(partition, deliveries(partition, records, self._settings.topic))

    async def _skip_empty_offsets(self) -> None:
        """Transactions end with offsets that hold no message: lag must not count them."""
        for tp, partition in list(self._partitions.items()):
            if not partition.unfinished and partition.live and not partition.resting:
                partition.advance(await self._consumer.position(tp))

    async def _lost_position(self, lost: Mapping[TopicPartition, int]) -> None:
        where = ", ".join(f"{tp.topic}[{tp.partition}] at {at}" for tp, at in lost.items())
        if self._on_lost_position == "stop" and self._assignment is not None:
            raise self._fatal(
                f"the position is gone ({where}): messages were deleted before they were read;"
                " set on_lost_position to earliest or latest, or set the group's offsets"
            )
        tps = list(lost)
        if self._on_lost_position == "earliest":
            places = await self._consumer.beginning_offsets(tps)
        else:
            places = await self._consumer.end_offsets(tps)
        for tp, offset in places.items():
            if partition := self._partitions.get(tp):
                partition.relocate(offset)
            self._consumer.seek(tp, offset)
        _log.warning(
            "a position was gone and is set anew",
            extra={"subscription": self._settings.name, "lost": where},
        )

    def _fatal(self, detail: str) -> TransportError:
        return TransportError(f"kafka: subscription {self._settings.name}: {detail}")
