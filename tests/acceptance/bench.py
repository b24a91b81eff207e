"""What a test of the suite works with."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import (
    Capabilities,
    Isolation,
    Subscription,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)

from tests.acceptance.targets import Target

MEGABYTE = 1024 * 1024


class Listener:
    """Keeps what a subscription tells. `release` is what it does with revoked shards."""

    def __init__(self) -> None:
        self.lost: list[Delivery] = []
        self.revoked: list[str | int] = []
        self.healthy: list[bool] = []

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        self.revoked += shards

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        self.lost += deliveries

    def health_changed(self, healthy: bool, detail: str) -> None:
        self.healthy.append(healthy)

    def suspects_waiting(self) -> None:
        """Tests ask for suspects by themselves."""


class Member:
    """A subscription, with the words that tests use."""

    def __init__(self, bench: Bench, subscription: Subscription, listener: Listener) -> None:
        self.bench = bench
        self.subscription = subscription
        self.listener = listener

    async def take(self, count: int, *, within: float = 5.0, most: int = 256) -> list[Delivery]:
        """Exactly `count` deliveries, however many calls it takes."""
        taken: list[Delivery] = []
        async with asyncio.timeout(within * self.bench.target.patience):
            while len(taken) < count:
                limit = min(most, count - len(taken))
                taken += await self.subscription.receive(limit, 64 * MEGABYTE)
        assert len(taken) == count, "receive gave more than it was asked for"
        return taken

    async def nothing(self, seconds: float = 0.3) -> None:
        """Nothing comes for a while."""
        receiving = asyncio.ensure_future(self.subscription.receive(1, MEGABYTE))
        done, _ = await asyncio.wait([receiving], timeout=seconds * self.bench.target.patience)
        if done:
            raise AssertionError(f"nothing should have come, but {receiving.result()}")
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)

    async def settle(self, *settlements: Settlement) -> list[SettleResult]:
        async with asyncio.timeout(10 * self.bench.target.patience):
            return list(await self.subscription.settle(settlements))

    async def ack(self, *deliveries: Delivery) -> None:
        results = await self.settle(*(Settlement(delivery) for delivery in deliveries))
        assert results == [SettleResult.DONE] * len(deliveries)

    async def nack(
        self, delivery: Delivery, delay: float = 0.0, failures: int = 1, first_failure: float = 0.0
    ) -> None:
        """Fails one run the way the scheduler does: by NACK, or by what `defer` says."""
        settlement = Settlement(
            delivery, Action.NACK, delay=delay, failures=failures, first_failure=first_failure
        )
        deferred = self.subscription.defer(delivery.message, delay) if delay else None
        if deferred is not None:
            await self.bench.publish(deferred)
            settlement = Settlement(delivery)
        assert await self.settle(settlement) == [SettleResult.DONE]

    async def release(self, *deliveries: Delivery) -> None:
        results = await self.settle(
            *(
                Settlement(
                    delivery,
                    Action.RELEASE,
                    failures=delivery.failures,
                    first_failure=delivery.first_failure,
                )
                for delivery in deliveries
            )
        )
        assert results == [SettleResult.DONE] * len(deliveries)

    async def isolated(
        self, delivery: Delivery | None = None, *, within: float = 15.0
    ) -> tuple[Delivery, int]:
        """What is to be run alone, and its start marks: the delivery, or what was moved to the
        group's solo queue; without a delivery, whichever of both comes first."""
        subscription = self.subscription
        assert isinstance(subscription, Isolation)
        receiving: asyncio.Future[Sequence[Delivery]] | None = None
        async with asyncio.timeout(within * self.bench.target.patience):
            while True:
                if delivery is None and receiving is None:
                    receiving = asyncio.ensure_future(subscription.receive(1, 64 * MEGABYTE))
                if receiving is not None and receiving.done():
                    (delivery,), receiving = receiving.result(), None
                if (found := await subscription.isolate(delivery)) is not None:
                    break
                delivery = None
                await asyncio.sleep(0.05)
        if receiving is not None:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        return found

    async def drain(self, *, quiet: float = 0.5) -> list[Delivery]:
        """Takes and acknowledges until nothing has come for a while."""
        taken: list[Delivery] = []
        while True:
            receiving = asyncio.ensure_future(self.subscription.receive(256, 64 * MEGABYTE))
            done, _ = await asyncio.wait([receiving], timeout=quiet * self.bench.target.patience)
            if not done:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
                return taken
            batch = receiving.result()
            await self.ack(*batch)
            taken += batch


class Bench:
    """A broker namespace of one test: its transports, topics and subscriptions."""

    def __init__(self, target: Target, url: str, directory: Path) -> None:
        self.target = target
        self.url = url
        self.directory = directory
        self.transport: Transport
        self._unique = uuid.uuid4().hex[:12]
        self._transports: list[Transport] = []

    @property
    def capabilities(self) -> Capabilities:
        return self.transport.capabilities

    async def connect(self, **options: Any) -> Transport:
        """One more transport on the same broker: as another process would have it."""
        settings = TransportSettings(
            url=TransportURL.parse(self.url), options={**self.target.options, **options}
        )
        transport = transports.create(settings)
        await transport.open()
        self._transports.append(transport)
        return transport

    async def reopen(self) -> None:
        """A restart: everything is closed, and `transport` is a new one."""
        await self.close()
        self.transport = await self.connect()

    async def close(self) -> None:
        while self._transports:
            await self._transports.pop().close()

    def topic(self, name: str = "orders") -> str:
        """A topic that no other test has."""
        return f"{name}.{self._unique}"

    def settings(self, topic: str, group: str = "billing", **fields: Any) -> SubscriptionSettings:
        defaults: dict[str, Any] = {
            "name": f"{topic}/{group}",
            "dead_letter_topics": (f"{topic}..{group}..dead",),
            "lease": self.target.lease,
        }
        return SubscriptionSettings(topic=topic, group=group, **{**defaults, **fields})

    async def join(
        self,
        topic: str,
        group: str = "billing",
        *,
        transport: Transport | None = None,
        **fields: Any,
    ) -> Member:
        """A member of a group, the topology made before."""
        transport = transport or self.transport
        settings = self.settings(topic, group, **fields)
        listener = Listener()
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        return Member(self, await transport.subscribe(settings, listener), listener)

    def message(self, topic: str, payload: bytes | None = b"x", **fields: Any) -> Message:
        fields.setdefault("id", uuid.uuid4().hex)
        return Message(topic=topic, payload=payload, **fields)

    async def publish(self, *messages: Message, transport: Transport | None = None) -> None:
        """Publishes, and all of it is taken."""
        async with asyncio.timeout(10 * self.target.patience):
            errors = await (transport or self.transport).submit(messages)
        assert list(errors) == [None] * len(messages)

    async def send(self, topic: str, *payloads: bytes, key: bytes | None = None) -> list[Message]:
        """Publishes one message for each payload."""
        messages = [self.message(topic, payload, key=key) for payload in payloads]
        await self.publish(*messages)
        return messages

    def strongest_order(self) -> Ordering:
        """PER_KEY where there is any order."""
        return Ordering.PER_KEY if self.capabilities.per_key else Ordering.NONE


def payloads(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.payload or b"" for delivery in deliveries]


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, stop)]
