"""Scans of topics from a start to an end, without a group."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from protoflow.contract.spec import Start
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import ConfigError, TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.topic_reader import Point, TopicRecord, number_of
from protoflow.transports.kafka import headers
from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.consumers import free_consumer, stop_consumer
from protoflow.transports.kafka.context import KafkaContext

R = TypeVar("R", TopicRecord, DeadLetterRecord)
Offsets: TypeAlias = Mapping[TopicPartition, int]
_POLL_MS = 500


class TopicScan:
    """A consumer of one topic without a group."""

    def __init__(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._tps = tps

    async def records(
        self, starts: Offsets, ends: Offsets, *, follow: bool = False
    ) -> AsyncGenerator[ConsumerRecord, None]:
        """Yields the records from the starts to the ends, or with `follow` without an end.

        Records of different partitions in the same poll are ordered by time.
        """
        consumer = self._consumer
        open_ = {tp for tp in starts if starts[tp] < ends[tp]}
        assigned = sorted(starts) if follow else sorted(open_)
        if not assigned:
            return
        consumer.assign(assigned)
        for tp in assigned:
            consumer.seek(tp, starts[tp])
        while open_ or follow:
            found = await consumer.getmany(timeout_ms=_POLL_MS)
            read = [
                records if follow else [each for each in records if each.offset < ends[tp]]
                for tp, records in found.items()
            ]
            for record in heapq.merge(*read, key=lambda record: record.timestamp):
                yield record
            # The last offsets may contain no record, so the position is compared.
            open_ = {tp for tp in open_ if await consumer.position(tp) < ends[tp]}

    async def ends(self) -> dict[TopicPartition, int]:
        """Returns the current ends of the partitions."""
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(self._tps)
        return ends

    async def starts(self, start: Start | Point, ends: Offsets) -> dict[TopicPartition, int]:
        """Returns the first offsets of a start: earliest, latest, a time since the epoch, or a
        position `PARTITION/OFFSET`, or several with commas; other partitions are left out."""
        if start is Start.LATEST:
            return dict(ends)
        if isinstance(start, Start | str):
            first: dict[TopicPartition, int] = await self._consumer.beginning_offsets(self._tps)
            return first if isinstance(start, Start) else _offsets(start, first)
        at = await self._consumer.offsets_for_times(
            dict.fromkeys(self._tps, max(0, int(start * 1000)))
        )
        return {tp: at[tp].offset if at.get(tp) is not None else ends[tp] for tp in self._tps}


def _offsets(position: str, first: Offsets) -> dict[TopicPartition, int]:
    """Returns the offsets that a position names. Raises ConfigError."""
    known = {str(tp.partition): tp for tp in first}
    offsets: dict[TopicPartition, int] = {}
    for part in position.split(","):
        partition, _, offset = part.strip().partition("/")
        if not offset or partition not in known:
            raise ConfigError(
                f"position {position}: write PARTITION/OFFSET, several with commas; the topic has "
                f"the partitions {', '.join(known)}"
            )
        tp = known[partition]
        offsets[tp] = max(first[tp], number_of(offset))
    return offsets


@contextlib.asynccontextmanager
async def open_scan(context: KafkaContext, topic: str) -> AsyncIterator[TopicScan]:
    """Opens a scan of a topic. Raises TopologyError if the topic is missing."""
    found = await describe(context.admin, [topic])
    if topic not in found:
        raise TopologyError(f"kafka: topic {topic} is missing", code=TOPOLOGY_MISSING)
    tps = [TopicPartition(topic, partition["partition"]) for partition in found[topic]]
    consumer = free_consumer(context)
    try:
        await consumer.start()
        yield TopicScan(consumer, sorted(tps))
    finally:
        await stop_consumer(consumer)


def identity_of(record: ConsumerRecord) -> tuple[str, dict[str, str]]:
    """Returns the id and the metadata of a record; its position is the id if it has none."""
    id, metadata, _ = headers.read(record.headers)
    return id or f"{record.topic}-{record.partition}-{record.offset}", metadata


def as_record(kind: type[R], topic: str, record: ConsumerRecord) -> R:
    """Returns a record as a record of a topic or of its dead letters."""
    id, metadata = identity_of(record)
    message = Message(
        id=id,
        topic=topic,
        payload=record.value,
        key=record.key,
        metadata=metadata,
        headers=record.headers,
    )
    position = f"{record.partition}/{record.offset}"
    return kind(message=message, position=position, time=record.timestamp / 1000)
