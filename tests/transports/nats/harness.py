"""A transport on a server, with the few words that the NATS tests use."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.testing import Listener
from protoflow.transport import (
    Subscription,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)

MEGABYTE = 1024 * 1024


def make(url: str, *, connect_timeout: float = 5.0, **options: Any) -> Transport:
    """A transport that is not open."""
    return transports.create(
        TransportSettings(
            url=TransportURL.parse(url), options=options, connect_timeout=connect_timeout
        )
    )


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Transport]:
    """An open transport."""
    transport = make(url, **options)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def topic(name: str = "orders") -> str:
    """A topic that no other test has."""
    return f"{name}.{uuid.uuid4().hex[:12]}"


def settings_of(topic: str, group: str = "billing", **fields: Any) -> SubscriptionSettings:
    return SubscriptionSettings(
        name=f"{topic}/{group}",
        topic=topic,
        group=group,
        **{"dead_letter_topics": (f"{topic}..{group}..dead",), **fields},
    )


async def join(
    transport: Transport, topic: str, group: str = "billing", **fields: Any
) -> tuple[Subscription, Listener]:
    settings = settings_of(topic, group, **fields)
    await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
    listener = Listener()
    return await transport.subscribe(settings, listener), listener


def message(topic: str, payload: bytes = b"x", **fields: Any) -> Message:
    return Message(topic=topic, payload=payload, **{"id": uuid.uuid4().hex, **fields})


async def publish(transport: Transport, *messages: Message) -> None:
    errors = await asyncio.wait_for(transport.submit(messages), 20)
    assert list(errors) == [None] * len(messages), errors


async def take(subscription: Subscription, count: int, within: float = 15.0) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(within):
        while len(taken) < count:
            taken += await subscription.receive(count - len(taken), 64 * MEGABYTE)
    return taken


async def nothing(subscription: Subscription, seconds: float = 0.5) -> None:
    with contextlib.suppress(TimeoutError):
        taken = await asyncio.wait_for(subscription.receive(1, MEGABYTE), seconds)
        raise AssertionError(f"nothing should have come, but {taken}")


async def ack(subscription: Subscription, *deliveries: Delivery) -> None:
    results = await asyncio.wait_for(
        subscription.settle([Settlement(delivery) for delivery in deliveries]), 20
    )
    assert list(results) == [SettleResult.DONE] * len(deliveries)


def payloads(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.payload or b"" for delivery in deliveries]


def block(fields: Mapping[str, str]) -> bytes:
    """Headers as they stand on the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"NATS/1.0\r\n" + lines.encode() + b"\r\n"
