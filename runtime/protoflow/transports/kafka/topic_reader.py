"""Reading a topic's partitions: assigned, not subscribed, so no group sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from protoflow.contract.spec import Start
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.kafka import names
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.topic_scan import as_record, open_scan

_WAIT_MS = 500


async def read_topic(
    context: KafkaContext, topic: str, start: Start | float, follow: bool
) -> AsyncIterator[TopicRecord]:
    """Yields the messages of a topic, committed ones only; see `TopicReader`."""
    try:
        async with open_scan(context, names.physical(topic)) as scan:
            ends = await scan.ends()
            consumer = scan.consumer
            starts = await _starts(consumer, scan.tps, ends, start)
            consumer.assign(scan.tps)
            for tp, offset in starts.items():
                consumer.seek(tp, offset)
            open_ = {tp for tp in scan.tps if starts[tp] < ends[tp]}
            while follow or open_:
                found = await consumer.getmany(timeout_ms=_WAIT_MS)
                records = [record for each in found.values() for record in each]
                for record in sorted(records, key=lambda record: record.timestamp):
                    if (
                        follow
                        or record.offset < ends[TopicPartition(record.topic, record.partition)]
                    ):
                        yield as_record(TopicRecord, topic, record)
                # The last offsets may hold no record: the position counts, not what was read.
                open_ = {tp for tp in open_ if await consumer.position(tp) < ends[tp]}
    except KafkaError as error:
        raise transport_error(error, "topic", topic) from error


async def _starts(
    consumer: AIOKafkaConsumer,
    tps: list[TopicPartition],
    ends: Mapping[TopicPartition, int],
    start: Start | float,
) -> dict[TopicPartition, int]:
    if start is Start.LATEST:
        return dict(ends)
    if not isinstance(start, float):
        found: dict[TopicPartition, int] = await consumer.beginning_offsets(tps)
        return found
    at = await consumer.offsets_for_times({tp: int(start * 1000) for tp in tps})
    return {tp: at[tp].offset if at.get(tp) is not None else ends[tp] for tp in tps}
