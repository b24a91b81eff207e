"""Scans of topics from a start to an end, without a group."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from protoflow.errors import TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.kafka import headers
from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.consumers import free_consumer, stop_consumer
from protoflow.transports.kafka.context import KafkaContext

R = TypeVar("R", TopicRecord, DeadLetterRecord)
_POLL_MS = 500


class TopicScan:
    """A consumer of one topic without a group."""

    def __init__(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        self.consumer = consumer
        self.tps = tps

    async def records(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> AsyncGenerator[ConsumerRecord, None]:
        """Everything from the beginnings, or the given starts, up to the ends."""
        starts = starts or await self.consumer.beginning_offsets(self.tps)
        open_ = {tp for tp in self.tps if starts.get(tp, 0) < ends.get(tp, 0)}
        if not open_:
            return
        self.consumer.assign(sorted(open_))
        for tp in open_:
            self.consumer.seek(tp, starts[tp])
        while open_:
            found = await self.consumer.getmany(timeout_ms=_POLL_MS)
            for tp, records in found.items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
            # The last offsets may hold no record: the position counts, not what was read.
            open_ = {tp for tp in open_ if await self.consumer.position(tp) < ends[tp]}

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the partitions end now."""
        ends: dict[TopicPartition, int] = await self.consumer.end_offsets(self.tps)
        return ends


@contextlib.asynccontextmanager
async def open_scan(context: KafkaContext, topic: str) -> AsyncIterator[TopicScan]:
    """Opens a scan of a topic. Raises TopologyError if the topic is missing."""
    found = await describe(context.admin, [topic])
    if topic not in found:
        raise TopologyError(f"kafka: topic {topic} is missing")
    tps = [TopicPartition(topic, partition["partition"]) for partition in found[topic]]
    consumer = free_consumer(context)
    try:
        await consumer.start()
        yield TopicScan(consumer, sorted(tps))
    finally:
        await stop_consumer(consumer)


def identity_of(record: ConsumerRecord) -> tuple[str, dict[str, str]]:
    """Returns the id and the metadata of a record; its place is the id if it has none."""
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
