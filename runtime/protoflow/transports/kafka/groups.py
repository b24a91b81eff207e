"""Reads the committed offsets of groups, with their metadata, from the broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.commit_metadata import CommitMetadata

_TRIES = 20
_PAUSE = 0.25


async def has_group(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Whether some group has a position in a topic. Raises KafkaError."""
    partitions = (await describe(admin, [topic])).get(topic, [])
    tps = [TopicPartition(topic, partition["partition"]) for partition in partitions]
    for group, *_ in await admin.list_consumer_groups() if tps else ():
        if await _positions(admin, group, tps):
            return True
    return False


async def committed(
    admin: AIOKafkaAdminClient, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, CommitMetadata]]:
    """Returns offset and metadata of the partitions that have a position. Raises KafkaError, and
    UnknownMetadataError for those of another version."""
    return {
        tp: (offset, CommitMetadata.decode(metadata, offset))
        for tp, (offset, metadata) in (await _positions(admin, group, tps)).items()
    }


async def _positions(
    admin: AIOKafkaAdminClient, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    for remaining in reversed(range(_TRIES if tps else 0)):
        try:
            return await _fetch(admin, group, tps)
        except KafkaError as error:
            # The coordinator loads the group, or has just moved.
            if not remaining or not error.retriable:
                raise
            await asyncio.sleep(_PAUSE)
    return {}


async def _fetch(
    admin: AIOKafkaAdminClient, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    """Returns offset and metadata of the partitions that have a position.

    aiokafka 0.14 treats the error of a whole group as an answer without partitions. The group would
    then begin again.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for tp in tps:
        numbers[tp.topic].append(tp.partition)
    coordinator = await admin.find_coordinator(group)
    answer: Any = await admin._send_request(
        OffsetFetchRequest(group, list(numbers.items())), coordinator
    )
    places = [(topic, *place) for topic, found in answer.topics for place in found]
    # Brokers before 0.10.2 report errors for each partition only.
    for code in (getattr(answer, "error_code", 0), *(place[-1] for place in places)):
        if code:
            raise for_code(code)(f"kafka: no positions of group {group}")
    return {
        TopicPartition(topic, number): (offset, metadata)
        for topic, number, offset, metadata, _ in places
        if offset >= 0
    }
