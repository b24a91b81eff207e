"""A queue of other programs as the source of a topic."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from tests.transports import source_walk
from tests.transports.source_walk import Walk


class ForeignQueue:
    """A queue with arguments, and bound to a fanout exchange of its owner."""

    def __init__(self, channel: AbstractChannel, kind: str, name: str = "legacy orders/") -> None:
        self.name = f"{name}{uuid.uuid4().hex[:8]}"
        self.exchange = f"legacy-{uuid.uuid4().hex[:8]}"
        self._channel = channel
        self._arguments: dict[str, Any] = {
            "x-queue-type": kind, "x-message-ttl": 3_600_000, "x-max-length": 1000,
        }  # fmt: skip

    async def declare(self) -> None:
        await self._channel.exchange_declare(self.exchange, exchange_type="fanout")
        await self._channel.queue_declare(self.name, durable=True, arguments=self._arguments)
        await self._channel.queue_bind(self.name, self.exchange)

    @property
    def source(self) -> Mapping[str, str]:
        return {"name": self.name}

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        properties = Basic.Properties(content_type=content_type, headers={**headers} or None)
        await self._channel.basic_publish(payload, exchange=self.exchange, properties=properties)

    async def topology(self) -> Any:
        """The server accepts a declaration only with equal arguments; see also `test_rights`."""
        await self.declare()

    async def waiting(self) -> int:
        found = await self._channel.queue_declare(self.name, passive=True)
        return found.message_count or 0

    async def delete(self) -> None:
        await self._channel.queue_delete(self.name)
        await self._channel.exchange_delete(self.exchange)


@pytest.fixture(params=["quorum", "classic"])
async def place(native: AbstractChannel, request: Any) -> AsyncIterator[ForeignQueue]:
    place = ForeignQueue(native, request.param)
    await place.declare()
    yield place
    await place.delete()


@pytest.fixture
def walk(url: str, place: ForeignQueue) -> Walk:
    return Walk(url, place)


async def test_foreign_messages_are_handled(walk: Walk) -> None:
    await source_walk.foreign_messages_are_handled(walk)


async def test_failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    await source_walk.failures_are_retried_and_dead_lettered_beside(walk)


async def test_topology_is_verified_and_published_to(walk: Walk) -> None:
    await source_walk.topology_is_verified_and_published_to(walk)
