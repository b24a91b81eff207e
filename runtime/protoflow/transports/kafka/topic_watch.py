"""Detects topics that were deleted, or deleted and created again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Protocol

from aiokafka.errors import KafkaError

from protoflow.errors import TransportError
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.record_reader import RecordReader
from protoflow.transports.kafka.start_positions import StartPositions

_log = logging.getLogger("protoflow.transports.kafka")
#: How often in a row a topic must be missing: one node may lag behind the others.
_SURE = 3


class WatchedMember(Protocol):
    """What a watch needs of the member of the group."""

    @property
    def topics(self) -> Sequence[str]:
        """The topics that it consumes."""
        ...

    @property
    def consumptions(self) -> Sequence[Consumption]:
        """The subscriptions that it reads for."""
        ...

    @property
    def reader(self) -> RecordReader:
        """What reads the records."""
        ...

    def prepare_again(self) -> None:
        """Prepares the partitions of the assignment that are not read."""

    def drop(self, partitions: Collection[Partition]) -> None:
        """Reads these partitions no longer."""

    def forget(self, topic: str) -> None:
        """Consumes a topic no longer."""


class TopicWatch:
    """Compares the ids of the topics with those that the positions were made for."""

    def __init__(
        self,
        member: WatchedMember,
        positions: StartPositions,
        context: KafkaContext,
    ) -> None:
        self._member = member
        self._positions = positions
        self._topic_ids = positions.topic_ids
        self._interval = context.options.health_interval
        self._missing: dict[str, int] = {}

    async def run(self) -> None:
        """Checks the topics at each interval, for ever."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                async with asyncio.timeout(self._interval):
                    ids = await self._topic_ids.of(self._member.topics)
                await self._compare(ids)
            except (KafkaError, TimeoutError, OSError) as error:
                _log.debug("checking topics failed", extra={"error": repr(error)})
            except Exception:  # it checks again
                _log.exception("checking topics failed")

    async def _compare(self, ids: dict[str, str]) -> None:
        back = False
        for topic in self._member.topics:
            before = self._missing.get(topic, 0)
            back = back or (topic in ids and before >= _SURE)
            self._missing[topic] = 0 if topic in ids else before + 1
        for consumption in list(self._member.consumptions):
            self._report_missing(consumption)
            await self._compare_partitions(consumption, ids)
        if back:
            self._member.prepare_again()

    async def _compare_partitions(self, consumption: Consumption, ids: dict[str, str]) -> None:
        for tp, partition in list(consumption.partitions.items()):
            now = ids.get(tp.topic, "")
            if not now or not partition.live:
                continue
            if not partition.topic:
                partition.topic = now
            elif partition.topic != now:
                try:
                    offset = await self._positions.after_recreation(tp, partition.watermark)
                except TransportError as error:
                    self._member.reader.end(tp.topic, error)
                    return
                partition.topic = now
                await self._member.reader.relocate(tp, offset)

    def _report_missing(self, consumption: Consumption) -> None:
        gone = [name for name in consumption.topics.all if self._missing.get(name, 0) >= _SURE]
        for name in gone:
            if name in consumption.topics.earlier:  # nobody needs it any more
                self._member.forget(name)
        lost = [name for name in gone if name not in consumption.topics.earlier]
        # Their positions can be committed no longer, which would hold up those of the others.
        self._member.drop([item for tp, item in consumption.partitions.items() if tp.topic in gone])
        consumption.set_problem(
            "topics",
            f"topics are missing, maybe deleted: {', '.join(lost)}; make them anew or restart"
            if lost
            else None,
        )
