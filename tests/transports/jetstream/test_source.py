"""A stream and a consumer of other programs as the source of a topic."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig
from protoflow.errors import TopologyError

from tests.transports import source_walk
from tests.transports.source_walk import Walk


class ForeignStream:
    """A stream and a durable consumer, with the settings of their owner."""

    def __init__(self, client: Any) -> None:
        self.name = f"LEGACY_{uuid.uuid4().hex[:8]}"
        self.consumer = "billing-v1"
        self._subject = f"legacy.{uuid.uuid4().hex[:8]}"
        self._client = client
        self._stream = client.jetstream()

    async def create(self, **consumer: Any) -> None:
        await self._stream.add_stream(
            StreamConfig(
                name=self.name,
                subjects=[f"{self._subject}.>"],
                max_age=3600,
                max_msgs=500,
                discard=DiscardPolicy.NEW,
                description="theirs",
            )
        )
        await self.add_consumer(ack_wait=2_000_000_000, max_deliver=4, **consumer)

    async def add_consumer(self, **config: Any) -> None:
        """Makes the consumer, with settings as the server names them."""
        wanted = {
            "durable_name": self.consumer,
            "filter_subject": f"{self._subject}.orders.*",
            "ack_policy": "explicit",
            **config,
        }
        subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{self.name}.{self.consumer}"
        body = json.dumps({"stream_name": self.name, "config": wanted}).encode()
        answer = json.loads((await self._client.request(subject, body)).data)
        assert "error" not in answer, answer

    @property
    def source(self) -> Mapping[str, str]:
        subject = f"{self._subject}.orders.protoflow"
        return {"name": self.name, "consumer": self.consumer, "subject": subject}

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        named = {**headers, **({"content-type": content_type} if content_type else {})}
        subject = f"{self._subject}.orders.eu"
        await self._stream.publish(subject, payload, headers=named or None)

    async def topology(self) -> Any:
        stream = await self._stream.stream_info(self.name)
        consumers = await self._stream.consumers_info(self.name)
        return asdict(stream.config), [asdict(each.config) for each in consumers]

    async def waiting(self) -> int:
        info = await self._stream.consumer_info(self.name, self.consumer)
        return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

    async def delete(self) -> None:
        await self._stream.delete_stream(self.name)


@pytest.fixture
async def place(url: str) -> AsyncIterator[ForeignStream]:
    client = await nats.connect(url.replace("jetstream://", "nats://"))
    place = ForeignStream(client)
    await place.create()
    yield place
    await place.delete()
    await client.close()


@pytest.fixture
def walk(url: str, place: ForeignStream) -> Walk:
    return Walk(url, place)


async def test_foreign_messages_are_handled(walk: Walk) -> None:
    await source_walk.foreign_messages_are_handled(walk)


async def test_failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    await source_walk.failures_are_retried_and_dead_lettered_beside(walk)


async def test_topology_is_verified_and_published_to(walk: Walk) -> None:
    await source_walk.topology_is_verified_and_published_to(walk)


async def test_a_missing_consumer_is_not_created(walk: Walk, place: ForeignStream) -> None:
    place.consumer = "missing"
    with pytest.raises(TopologyError, match=r"nats consumer add LEGACY_.* missing --pull"):
        async with walk.running():
            pass


async def test_a_consumer_without_payloads_is_refused(walk: Walk, place: ForeignStream) -> None:
    place.consumer = "headers"
    await place.add_consumer(headers_only=True)
    with pytest.raises(TopologyError, match="it delivers headers only"):
        async with walk.running():
            pass


async def test_limits_of_a_consumer_are_kept(walk: Walk, place: ForeignStream) -> None:
    place.consumer = "small"
    await place.add_consumer(max_batch=2, max_bytes=70_000, max_expires=1_000_000_000)
    before = await place.topology()
    for number in range(5):
        await place.publish(b'{"number": %d}' % number, None, {})
    async with walk.running():
        await walk.until(lambda: len(walk.runs) == 5)
        await walk.settled()
    assert await place.topology() == before
