"""Reading topics from one end to the other, without a group."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from protoflow.errors import TopologyError
from protoflow.transports.kafka.asking import describe
from protoflow.transports.kafka.consumers import free_consumer, stop_consumer
from protoflow.transports.kafka.context import Context

_LOOK_MS = 500


class Look:
    """A consumer that looks into one topic."""

    def __init__(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        self.consumer = consumer
        self.tps = tps

    async def records(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> AsyncIterator[ConsumerRecord]:
        """Everything from the beginnings, or the given starts, up to the ends."""
        starts = starts or await self.consumer.beginning_offsets(self.tps)
        open_ = {tp for tp in self.tps if starts.get(tp, 0) < ends.get(tp, 0)}
        if not open_:
            return
        self.consumer.assign(sorted(open_))
        for tp in open_:
            self.consumer.seek(tp, starts[tp])
        while open_:
            found = await self.consumer.getmany(timeout_ms=_LOOK_MS)
            for tp, records in found.items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
            # The last offsets may hold no record: the position tells, not what was read.
            open_ = {tp for tp in open_ if await self.consumer.position(tp) < ends[tp]}

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the partitions end now."""
        ends: dict[TopicPartition, int] = await self.consumer.end_offsets(self.tps)
        return ends


@contextlib.asynccontextmanager
async def look(context: Context, topic: str) -> AsyncIterator[Look]:
    """Looks into a topic. Raises TopologyError if there is none."""
    found = await describe(context.admin, [topic])
    if topic not in found:
        raise TopologyError(f"kafka: topic {topic} is missing")
    tps = [TopicPartition(topic, partition["partition"]) for partition in found[topic]]
    consumer = free_consumer(context)
    try:
        await consumer.start()
        yield Look(consumer, sorted(tps))
    finally:
        await stop_consumer(consumer)
