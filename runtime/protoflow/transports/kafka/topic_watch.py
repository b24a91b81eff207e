"""Detects topics that were deleted, or deleted and created again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka.errors import KafkaError

from protoflow.errors import TransportError
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.broker_queries import topic_ids
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.record_reader import RecordReader
from protoflow.transports.kafka.start_positions import StartPositions

_log = logging.getLogger("protoflow.transports.kafka")
#: A topic must be missing this many times in a row, because one node may lag.
_SURE = 3


class TopicWatch:
    """Compares the ids of the topics with those at the start of the positions.

    Args:
        forget: called with a topic that must no longer be consumed.
    """

    def __init__(
        self,
        member: GroupMember,
        assignment: Assignment,
        reader: RecordReader,
        positions: StartPositions,
        forget: Callable[[str], None],
    ) -> None:
        self._member = member
        self._assignment = assignment
        self._reader = reader
        self._positions = positions
        self._forget = forget
        self._interval = member.context.options.health_interval
        self._missing: dict[str, int] = {}

    async def run(self) -> None:
        """Checks the topics at each interval, for ever."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                async with asyncio.timeout(self._interval):
                    ids = await topic_ids(self._member.context.admin, self._member.topics)
                await self._compare(ids)
            except (KafkaError, TimeoutError, OSError) as error:
                _log.debug("checking topics failed", extra={"error": repr(error)})
            except Exception:  # the check is repeated
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
            self._assignment.prepare_again()

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
                    self._reader.end(tp.topic, error)
                    return
                partition.topic = now
                await self._reader.relocate(tp, offset)

    def _report_missing(self, consumption: Consumption) -> None:
        gone = [name for name in consumption.topics.all if self._missing.get(name, 0) >= _SURE]
        for name in gone:
            if name in consumption.topics.earlier:  # no subscription needs it any more
                self._forget(name)
        lost = [name for name in gone if name not in consumption.topics.earlier]
        # A deleted partition cannot be committed, and would block the commits of the others.
        partitions = consumption.partitions.items()
        self._assignment.drop([item for tp, item in partitions if tp.topic in gone])
        consumption.set_problem(
            "topics",
            f"topics are missing, maybe deleted: {', '.join(lost)}; create them or restart"
            if lost
            else None,
        )
