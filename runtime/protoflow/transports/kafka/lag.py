"""The lag of a group."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition

from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.transport.lag import Lag
from protoflow.transports.kafka import groups, names
from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.consumers import free_consumer, stop_consumer
from protoflow.transports.kafka.context import KafkaContext

_LOOK_MS = 1000
_LOOKS = 3


async def read_lag(context: KafkaContext, topic: str, group: str) -> Lag:
    """Returns the unsettled messages of topic and retry topics, and the age of the oldest."""
    main = context.physical(topic)
    steps = (0.0, *context.settings.ladder)
    wanted = {main, *(names.retry_topic(topic, group, step) for step in steps)}
    # Rungs of an earlier ladder count, too.
    wanted |= {name for name in context.existing if names.step_of(name, topic, group) is not None}
    found = await describe(context.admin, sorted(wanted))
    if main not in found:
        raise TopologyError(f"kafka: topic {topic} is missing", code=TOPOLOGY_MISSING)
    tps = [
        TopicPartition(name, partition["partition"])
        for name, partitions in found.items()
        for partition in partitions
    ]
    committed = await groups.committed(
        context.admin, context.settings.sources.consumer(topic, group), tps
    )
    consumer = free_consumer(context)
    try:
        await consumer.start()
        ends = await consumer.end_offsets(tps)
        begins = await consumer.beginning_offsets(tps)
        messages = 0
        oldest: dict[TopicPartition, int] = {}
        for tp in tps:
            offset, metadata = committed.get(tp, (begins[tp], None))
            waiting = (
                ends[tp] - max(offset, begins[tp]) - (len(metadata.finished) if metadata else 0)
            )
            if waiting > 0:
                messages += waiting
                oldest[tp] = max(offset, begins[tp])
        time = await _oldest_time(consumer, oldest)
    finally:
        await stop_consumer(consumer)
    age = None if time is None else max(0.0, context.settings.clock.now() - time)
    return Lag(messages=messages, seconds=age if messages else 0.0)


async def _oldest_time(
    consumer: AIOKafkaConsumer, oldest: dict[TopicPartition, int]
) -> float | None:
    """Returns the time at which the broker received the oldest of these messages."""
    if not oldest:
        return None
    consumer.assign(list(oldest))
    for tp, offset in oldest.items():
        consumer.seek(tp, offset)
    times: dict[TopicPartition, float] = {}
    for _ in range(_LOOKS):
        for tp, records in (await consumer.getmany(timeout_ms=_LOOK_MS)).items():
            times.setdefault(tp, records[0].timestamp / 1000)
        if len(times) == len(oldest):
            break
    return min(times.values(), default=None)
