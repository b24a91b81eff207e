"""Transports on a schema of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message, Settlement
from protoflow.testing import Listener
from protoflow.transport import (
    Subscription,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports.postgresql.options import PostgresOptions
from protoflow.transports.postgresql.transport import PostgresTransport

MEGABYTE = 1 << 20


class TestSchema:
    """A schema, and the transports that a test opened on it.

    Attributes:
        schema: the name of the schema.
        admin: a connection of the server's owner.
    """

    __test__ = False

    def __init__(self, url: str, schema: str, admin: Any) -> None:  # Any: asyncpg has no types
        self.url = url
        self.schema = schema
        self.admin = admin
        self._transports: list[PostgresTransport] = []

    def transport(
        self, url: str = "", *, settings: dict[str, Any] | None = None, **options: Any
    ) -> PostgresTransport:
        """A transport that is not open yet; it is closed with the test."""
        given = TransportSettings(url=TransportURL.parse(url or self.url), **(settings or {}))
        made = PostgresTransport(given, PostgresOptions(schema=self.schema, **options))
        self._transports.append(made)
        return made

    async def open(self, url: str = "", **options: Any) -> PostgresTransport:
        """An open transport."""
        transport = self.transport(url, **options)
        await transport.open()
        return transport

    async def run(self, statement: str) -> Any:
        """Runs a statement as the server's owner; `{s}` is the schema."""
        return await self.admin.fetch(statement.replace("{s}", self.schema))

    async def close(self) -> None:
        """Closes the transports, and drops the schema."""
        for transport in self._transports:
            await transport.close()
        await self.admin.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


def settings_of(
    ordering: Ordering = Ordering.NONE, topic: str = "orders", group: str = "billing", **fields: Any
) -> SubscriptionSettings:
    """A subscription of a group."""
    return SubscriptionSettings(
        name=f"{topic}/{group}",
        topic=topic,
        group=group,
        ordering=ordering,
        dead_letter_topics=(f"{topic}..{group}..dead",),
        **fields,
    )


async def join(transport: PostgresTransport, settings: SubscriptionSettings) -> Subscription:
    """A member of the group."""
    await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
    return await transport.subscribe(settings, Listener())


def messages(*numbers: int, topic: str = "orders") -> list[Message]:
    """Messages with a key each."""
    return [
        Message(id=f"m{number}", topic=topic, payload=b"%d" % number, key=b"k%d" % (number % 7))
        for number in numbers
    ]


async def publish(transport: PostgresTransport, *numbers: int, topic: str = "orders") -> None:
    """Publishes, and asserts that it was confirmed."""
    assert await transport.submit(messages(*numbers, topic=topic)) == [None] * len(numbers)


async def take(subscription: Subscription, count: int, within: float = 30.0) -> list[Delivery]:
    """So many deliveries."""
    found: list[Delivery] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            found += await subscription.receive(count - len(found), MEGABYTE)
    return found


async def acknowledge(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
    """Settles."""
    await subscription.settle([Settlement(delivery) for delivery in deliveries])


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    """What the payloads say, sorted."""
    return sorted(int(each.message.payload or b"-1") for each in deliveries)
