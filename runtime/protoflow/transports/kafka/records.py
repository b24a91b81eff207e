"""Kafka's records as deliveries: the hot path of consuming."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import ConsumerRecord

from protoflow.message import Delivery, Message
from protoflow.transports.kafka import headers
from protoflow.transports.kafka.partition import Partition


def deliveries(
    partition: Partition, records: Sequence[ConsumerRecord], topic: str
) -> list[Delivery]:
    """The deliveries of records just read, without those finished in an earlier life."""
    read = headers.read
    admit = partition.admit
    shard = partition.shard
    result = []
    for record in records:
        offset = record.offset
        if not admit(offset):
            continue
        native = record.headers
        id, metadata, size = read(native)
        key = record.key
        value = record.value
        if key is not None:
            size += len(key)
        if value is not None:
            size += len(value)
        result.append(
            Delivery(
                message=Message(
                    # A foreign message without id: where it lies is as good, and stays.
                    id=id or f"{record.topic}-{record.partition}-{offset}",
                    topic=topic,
                    payload=value,
                    key=key,
                    metadata=metadata,
                    headers=native,
                ),
                shard=shard,
                position=offset,
                time=record.timestamp / 1000,
                size=size,
                receipt=partition,
            )
        )
    return result
