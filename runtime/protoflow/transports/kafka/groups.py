"""Committed offsets of groups, with their metadata, as the broker knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.commit_metadata import CommitMetadata

_TRIES = 20


async def has_group(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Whether some group has a position in a topic. Raises KafkaError."""
    partitions = (await describe(admin, [topic])).get(topic, [])
    tps = [TopicPartition(topic, partition["partition"]) for partition in partitions]
    for group, *_ in await admin.list_consumer_groups() if tps else ():
        places = await admin.list_consumer_group_offsets(group, partitions=tps)
        if any(place.offset >= 0 for place in places.values()):
            return True
    return False


async def committed(
    admin: AIOKafkaAdminClient, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, CommitMetadata]]:
    """Returns offset and metadata of the partitions that have a position. Raises KafkaError, and
    UnknownMetadataError for those of another version."""
    for remaining in reversed(range(_TRIES if tps else 0)):
        try:
            found = await admin.list_consumer_group_offsets(group, partitions=list(tps))
        except (KafkaError, AttributeError) as error:
            # The coordinator loads the group, or has just moved. (An AttributeError is how
            # aiokafka 0.14 reports the error of one partition.)
            if not remaining:
                raise KafkaError(f"no position of group {group}") from error
            await asyncio.sleep(0.25)
        else:
            return {
                tp: (place.offset, CommitMetadata.decode(place.metadata, place.offset))
                for tp, place in found.items()
                if place.offset >= 0
            }
    return {}
