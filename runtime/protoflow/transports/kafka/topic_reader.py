"""Reads a topic's partitions without a subscription, so that no group is affected."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiokafka.errors import KafkaError

from protoflow.contract.spec import Start
from protoflow.transport.topic_reader import Point, TopicRecord
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.topic_scan import as_record, open_scan


async def read_topic(
    context: KafkaContext,
    topic: str,
    start: Start | Point,
    end: Point | None = None,
    *,
    follow: bool,
) -> AsyncIterator[TopicRecord]:
    """Yields the committed messages of a topic; see `TopicReader`."""
    try:
        async with open_scan(context, context.physical(topic)) as scan:
            ends = await scan.ends()
            starts = await scan.starts(start, ends)
            if end is not None:
                upto = await scan.starts(end, ends)
                starts = {tp: starts[tp] for tp in starts if tp in upto}
                ends = {tp: min(ends[tp], upto[tp]) for tp in starts}
            async for record in scan.records(starts, ends, follow=follow):
                yield as_record(TopicRecord, topic, record)
    except KafkaError as error:
        raise transport_error(error, "topic", topic) from error
