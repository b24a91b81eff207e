"""Converts records to deliveries: the hot path of consuming."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from aiokafka import ConsumerRecord

from protoflow import wire
from protoflow.message import Delivery, Message
from protoflow.transports.kafka import headers
from protoflow.transports.kafka.partition import Partition

_log = logging.getLogger("protoflow.transports.kafka")


def deliveries(
    partition: Partition, records: Sequence[ConsumerRecord], topic: str
) -> list[Delivery]:
    """Returns the deliveries of new records, without those that were finished earlier."""
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
                    # The position is a permanent id for a foreign message without an id.
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
    if partition.own:
        result = _own(partition, result)
    if partition.isolated_until or partition.marks:
        for delivery in result:
            delivery.suspect = partition.is_suspect(int(delivery.position))
    return result


def _own(partition: Partition, found: list[Delivery]) -> list[Delivery]:
    """Returns a record of the group's own retry topic, with its hop state. A record of another
    group is skipped."""
    group = partition.consumption.settings.group
    mine = []
    for delivery in found:
        if delivery.message.metadata.get(wire.PF_GROUP, group) == group:
            delivery.own_place = True
            mine.append(delivery)
        else:
            partition.finish(int(delivery.position))
            _log.error(
                "a retry of another group was in a retry topic of this group, and was skipped",
                extra={"partition": str(partition.tp), "position": delivery.position},
            )
    return mine


def mark_unreadable(found: Sequence[Delivery], reasons: Mapping[int, str]) -> None:
    """Marks deliveries whose records could not be read as they were sent."""
    for delivery in found:
        reason = reasons.get(int(delivery.position))
        if reason is not None:
            delivery.unreadable = reason
            _log.error(
                "a record was not readable",
                extra={
                    "partition": str(delivery.receipt.tp),
                    "position": delivery.position,
                    "error": reason,
                },
            )
