"""A topic and a group of other programs as the source of a topic of the contract."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from protoflow.errors import TopologyError

from tests.transports import source_walk
from tests.transports.source_walk import PATIENCE, Walk


class ForeignTopic:
    """A topic with settings of its owner, and the group in which its owner consumes it."""

    def __init__(self, url: str, partitions: int = 2) -> None:
        self.name = f"Legacy_Orders-{uuid.uuid4().hex[:8]}"
        self.group = f"Legacy group/{uuid.uuid4().hex[:8]}"
        self.address = urlsplit(url).netloc
        self.partitions = partitions
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        self.producer = AIOKafkaProducer(bootstrap_servers=self.address)

    async def open(self) -> None:
        await self.admin.start()
        await self.producer.start()
        configs = {"retention.ms": "7200000", "max.message.bytes": "200000"}
        await self.admin.create_topics(
            [NewTopic(self.name, self.partitions, 1, topic_configs=configs)]
        )

        async with asyncio.timeout(PATIENCE):
            while len((await self.topology())[0]) < self.partitions:
                await asyncio.sleep(0.05)  # the brokers learn it a little later

    async def close(self) -> None:
        await self.admin.delete_topics([self.name])
        await self.admin.close()
        await self.producer.stop()

    @property
    def source(self) -> Mapping[str, str]:
        return {"name": self.name, "consumer": self.group}

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        named = {**headers, **({"content-type": content_type} if content_type else {})}
        native = [(name, value.encode()) for name, value in named.items()]
        await self.producer.send_and_wait(self.name, payload, headers=native)

    async def topology(self) -> Any:
        (described,) = await self.admin.describe_topics([self.name])
        places = [(each["partition"], each["replicas"]) for each in described["partitions"]]
        wanted = ConfigResource(ConfigResourceType.TOPIC, self.name)
        (answer,) = await self.admin.describe_configs([wanted])
        return sorted(places), sorted(map(str, answer.resources[0][4]))

    async def waiting(self) -> int:
        tps = [TopicPartition(self.name, number) for number in range(self.partitions)]
        committed = await self.admin.list_consumer_group_offsets(self.group)
        async with self.consumer() as consumer:
            ends = await consumer.end_offsets(tps)
        return sum(ends[tp] - (committed[tp].offset if tp in committed else 0) for tp in tps)

    def consumer(self, *topics: str, **settings: Any) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(*topics, bootstrap_servers=self.address, **settings)


@pytest.fixture
async def place(url: str) -> AsyncIterator[ForeignTopic]:
    place = ForeignTopic(url)
    await place.open()
    yield place
    await place.close()


@pytest.fixture
def walk(url: str, place: ForeignTopic) -> Walk:
    return Walk(url, place)


async def test_foreign_messages_are_handled(walk: Walk) -> None:
    await source_walk.foreign_messages_are_handled(walk)


async def test_failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    await source_walk.failures_are_retried_and_dead_lettered_beside(walk)


async def test_topology_is_verified_and_published_to(walk: Walk) -> None:
    await source_walk.topology_is_verified_and_published_to(walk)


async def test_a_missing_topic_is_not_created(walk: Walk, place: ForeignTopic) -> None:
    place.name = f"missing-{uuid.uuid4().hex[:8]}"
    with pytest.raises(TopologyError, match=f"{place.name} is missing; a source names it"):
        async with walk.running():
            pass
    assert place.name not in await place.admin.list_topics()
    place.name = walk.config().topics["tasks"].source.name  # type: ignore[union-attr]


async def test_old_and_new_consumers_share_a_group(walk: Walk, place: ForeignTopic) -> None:
    """A plain consumer with aiokafka's assignor hands its partitions over, and gets them back."""
    old = place.consumer(place.name, group_id=place.group, enable_auto_commit=False)
    await old.start()
    seen: list[int] = []

    async def consume() -> None:
        async for record in old:
            seen.append(int(record.value))
            await old.commit()

    consuming = asyncio.create_task(consume())
    try:
        async with walk.running():
            async with asyncio.timeout(PATIENCE):
                while len(old.assignment()) != 1:
                    await asyncio.sleep(0.05)
    finally:
        consuming.cancel()
        await old.stop()
