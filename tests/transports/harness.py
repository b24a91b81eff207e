"""Transports and subscriptions in a few words, for tests without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.message import Delivery, Message, Settlement
from protoflow.testing import Listener as Listener
from protoflow.transport import Subscription, SubscriptionSettings, TransportSettings


def make(url: str, **fields: Any) -> Any:
    return transports.create(TransportSettings(url=TransportURL.parse(url), **fields))


@asynccontextmanager
async def opened(url: str, **fields: Any) -> AsyncIterator[Any]:
    transport = make(url, **fields)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def settings(topic: str = "t", group: str = "g", **fields: Any) -> SubscriptionSettings:
    return SubscriptionSettings(name=f"{topic}/{group}", topic=topic, group=group, **fields)


def messages(count: int, topic: str = "t", **fields: Any) -> list[Message]:
    return [
        Message(id=f"m{number}", topic=topic, payload=b"%d" % number, **fields)
        for number in range(count)
    ]


async def take(subscription: Subscription, count: int = 1, within: float = 5.0) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(within):
        while len(taken) < count:
            taken += await subscription.receive(count - len(taken), 1 << 30)
    return taken


async def ack(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
    results = await subscription.settle([Settlement(delivery) for delivery in deliveries])
    assert [result.name for result in results] == ["DONE"] * len(deliveries)
