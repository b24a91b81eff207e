"""What the tests against a real Kafka work with."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from protoflow.config.url import TransportURL
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport import (
    Subscription,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports import kafka
from protoflow.transports.kafka.transport import KafkaTransport

MEGABYTE = 1024 * 1024
#: A short session, so that a killed member is noticed soon.
QUICK = {"session_timeout": 2.0, "heartbeat_interval": 0.5, "commit_interval": 0.2}


class Listener:
    """Keeps what it is told; `drain` is what it does before shards leave."""

    def __init__(self, drain: Callable[[], Awaitable[None]] | None = None) -> None:
        self.drain = drain
        self.revoked: list[tuple[set[str | int], float]] = []
        self.health: list[tuple[bool, str]] = []

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        self.revoked.append((set(shards), drain))
        if self.drain is not None:
            await self.drain()

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        raise AssertionError("Kafka has no leases")

    def health_changed(self, healthy: bool, detail: str) -> None:
        self.health.append((healthy, detail))

    def suspects_waiting(self) -> None:
        raise AssertionError("Kafka has no solo queue")


def unique(name: str = "orders") -> str:
    return f"{name}.{uuid.uuid4().hex[:10]}"


def transport(url: str, **fields: Any) -> KafkaTransport:
    options = {**QUICK, **fields.pop("options", {})}
    settings = TransportSettings(url=TransportURL.parse(url), options=options, **fields)
    made = kafka.create(settings)
    assert isinstance(made, KafkaTransport)
    return made


@asynccontextmanager
async def opened(url: str, **fields: Any) -> AsyncIterator[KafkaTransport]:
    made = transport(url, **fields)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def settings(topic: str, group: str = "billing", **fields: Any) -> SubscriptionSettings:
    fields.setdefault("dead_letter_topics", (f"{topic}..{group}..dead",))
    fields.setdefault("needs_broker_retry", False)
    return SubscriptionSettings(name=f"{topic}/{group}", topic=topic, group=group, **fields)


async def join(
    broker: KafkaTransport,
    wanted: SubscriptionSettings,
    listener: Listener | None = None,
) -> Subscription:
    await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.CREATE)
    return await broker.subscribe(wanted, listener or Listener())


async def publish(broker: KafkaTransport, topic: str, *payloads: bytes, **fields: Any) -> None:
    messages = [
        Message(id=uuid.uuid4().hex, topic=topic, payload=payload, **fields) for payload in payloads
    ]
    assert await broker.submit(messages) == [None] * len(messages)


async def take(subscription: Subscription, count: int, within: float = 20) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(within):
        while len(taken) < count:
            taken += await subscription.receive(count - len(taken), MEGABYTE)
    return taken


async def ack(subscription: Subscription, *deliveries: Delivery) -> None:
    results = await subscription.settle([Settlement(delivery) for delivery in deliveries])
    assert list(results) == [SettleResult.DONE] * len(deliveries)


def payloads(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.payload or b"" for delivery in deliveries]
