"""Positions at which partitions start, and topics that were created again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition

from protoflow.contract.spec import Ordering, Start
from protoflow.error_codes import OTHER_VERSION, POSITION_LOST
from protoflow.errors import TopologyError, TransportError
from protoflow.transports.kafka.broker_queries import topic_ids
from protoflow.transports.kafka.commit_metadata import CommitMetadata, UnknownMetadataError
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.groups import committed
from protoflow.transports.kafka.partition import Partition

_log = logging.getLogger("protoflow.transports.kafka")


class StartPositions:
    """Loads partitions with their positions from the broker.

    If the last commit of a partition failed, this process knows a later position than the broker.
    It uses that position if no other process has owned the partition meanwhile: the first commit
    of an owner stores its name.
    """

    def __init__(self, member: GroupMember) -> None:
        self._member = member
        self._writer = member.context.writer
        self._kept: dict[TopicPartition, tuple[int, CommitMetadata]] = {}
        self._consumer = member.consumer
        self._policy = member.context.settings.on_lost_position

    def keep(self, partitions: Collection[Partition]) -> None:
        """Remembers the progress of partitions whose last commit failed."""
        for partition in partitions:
            if not partition.atomic:  # only the broker knows how a transaction ended
                metadata = partition.metadata(self._writer, clean=False)
                self._kept[partition.tp] = partition.watermark, metadata

    def forget(self, tps: Collection[TopicPartition]) -> None:
        """Forgets the progress of `keep`, because it is committed."""
        for tp in tps:
            self._kept.pop(tp, None)

    async def load(
        self, consumptions: Mapping[TopicPartition, Consumption]
    ) -> dict[TopicPartition, Partition]:
        """Returns the partitions at their start.

        Raises KafkaError, or TransportError if repetition cannot help.
        """
        if not consumptions:
            return {}
        ids = await topic_ids(self._member.context.admin, {tp.topic for tp in consumptions})
        try:
            places = await self._committed(consumptions)
        except UnknownMetadataError as error:
            raise TopologyError(
                f"kafka: the positions of group {self._member.group} were written by another"
                f" version of Protoflow (metadata {error}); let that version handle all messages,"
                " then delete the group or set its offsets",
                code=OTHER_VERSION,
            ) from error
        partitions = {}
        for tp, (offset, metadata) in places.items():
            if tp in self._kept and metadata.writer == self._writer:
                offset, metadata = self._kept[tp]
            now = ids.get(tp.topic, "")
            if metadata.topic and now and metadata.topic != now:
                try:
                    offset, metadata = await self.after_recreation(tp, offset), CommitMetadata()
                except TransportError as error:
                    consumptions[tp].fail(error)
            partitions[tp] = consumptions[tp].make(tp, offset, metadata)
        partitions |= await self._without_position(
            {tp: consumption for tp, consumption in consumptions.items() if tp not in places}
        )
        partitions = {tp: item for tp, item in partitions.items() if consumptions[tp].open}
        for tp, partition in partitions.items():
            partition.topic = ids.get(tp.topic, "")
            if not partition.initial_partitions:
                partition.initial_partitions = len(
                    self._consumer.partitions_for_topic(tp.topic) or ()
                )
        await self._judge(partitions)
        return partitions

    async def after_recreation(self, tp: TopicPartition, offset: int) -> int:
        """Returns the start position of a topic that was deleted and created again.

        Raises TransportError if the configuration allows no new position.
        """
        where = f"{tp.topic}[{tp.partition}] at {offset}"
        if self._policy == "stop":
            raise TransportError(
                f"kafka: group {self._member.group}: topic {tp.topic} was deleted and created"
                f" again, so the position {where} is invalid; set on_lost_position to earliest or"
                " latest, or set the group's offsets",
                code=POSITION_LOST,
            )
        _log.warning(
            "a topic was deleted and created again, and the group begins again",
            extra={"group": self._member.group, "lost": where, "on_lost_position": self._policy},
        )
        if self._policy == "earliest":
            places = await self._consumer.beginning_offsets([tp])
        else:
            places = await self._consumer.end_offsets([tp])
        return int(places[tp])

    async def _without_position(
        self, consumptions: Mapping[TopicPartition, Consumption]
    ) -> dict[TopicPartition, Partition]:
        """Returns partitions without a position; messages of a retry topic are never skipped."""
        latest: list[TopicPartition] = []
        initial_partitions: dict[TopicPartition, int] = {}
        for topic, consumption in {
            tp.topic: consumption for tp, consumption in consumptions.items()
        }.items():
            if topic != consumption.topics.main:
                continue
            count = await self._initial_partitions(topic)
            for tp in consumptions:
                if tp.topic != topic:
                    continue
                initial_partitions[tp] = count
                if consumption.settings.start is Start.LATEST and (
                    not count or tp.partition < count
                ):
                    latest.append(tp)
            self._warn(consumption, topic, count)
        offsets = await self._consumer.end_offsets(latest) if latest else {}
        earliest = [tp for tp in consumptions if tp not in offsets]
        if earliest:
            offsets |= await self._consumer.beginning_offsets(earliest)
        return {
            tp: consumptions[tp].make(
                tp, offset, CommitMetadata(initial_partitions=initial_partitions.get(tp, 0))
            )
            for tp, offset in offsets.items()
        }

    async def _initial_partitions(self, topic: str) -> int:
        """Returns the number of partitions when the group began with the topic; 0 if it has not
        begun. Partitions that were added since then start at their beginning, because messages
        would otherwise be skipped."""
        tps = [TopicPartition(topic, item) for item in self._numbers(topic)]
        places = await self._committed(tps)
        return min(
            (
                metadata.initial_partitions
                for _, metadata in places.values()
                if metadata.initial_partitions
            ),
            default=0,
        )

    async def _committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, CommitMetadata]]:
        return await committed(self._member.context.admin, self._member.group, tps)

    def _numbers(self, topic: str) -> Collection[int]:
        return self._consumer.partitions_for_topic(topic) or ()

    def _warn(self, consumption: Consumption, topic: str, initial_partitions: int) -> None:
        now = len(self._numbers(topic))
        if (
            initial_partitions
            and now > initial_partitions
            and consumption.settings.ordering is Ordering.PER_KEY
        ):
            _log.warning(
                "a topic has more partitions than before: keys moved, and messages of a key may be"
                " handled out of order; drain the group before partitions are added",
                extra={
                    "subscription": consumption.settings.name,
                    "topic": topic,
                    "partitions_before": initial_partitions,
                    "partitions": now,
                },
            )

    async def _judge(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Isolates messages of partitions that had work and whose starts had no normal end."""
        suspicious = [tp for tp, item in partitions.items() if item.is_suspicious]
        ends = await self._consumer.end_offsets(suspicious) if suspicious else {}
        for tp, end in ends.items():
            partition = partitions[tp]
            if end <= partition.watermark:
                partition.trust()
            else:
                partition.begin_isolation(partition.consumption.settings.max_in_flight)
                _log.warning(
                    "a partition was started repeatedly without an end; messages run one at a time",
                    extra={
                        "subscription": partition.consumption.settings.name,
                        "partition": str(tp),
                    },
                )
