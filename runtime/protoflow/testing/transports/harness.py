"""The harness of a case: a transport, its topics and the members of its groups."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.testing.listener import Listener
from protoflow.testing.transports.target import TransportTarget
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

MEGABYTE = 1024 * 1024


T = TypeVar("T", bound=Callable[..., object])


def needs(*capabilities: str) -> Callable[[T], T]:
    """Marks a case with the capabilities that it proves; it is skipped without them."""

    def mark(case: T) -> T:
        case.__dict__["capabilities"] = capabilities
        return case

    return mark


class Member:
    """A member of a group: its subscription, with methods that cases use."""

    def __init__(
        self, harness: TransportHarness, subscription: Subscription, listener: Listener
    ) -> None:
        self.harness = harness
        self.subscription = subscription
        self.listener = listener

    async def take(self, count: int, *, within: float = 5.0, most: int = 256) -> list[Delivery]:
        """Returns exactly `count` deliveries, with as many calls as necessary."""
        taken: list[Delivery] = []
        async with asyncio.timeout(within * self.harness.target.patience):
            while len(taken) < count:
                limit = min(most, count - len(taken))
                taken += await self.subscription.receive(limit, 64 * MEGABYTE)
        assert len(taken) == count, "`receive` returned more than the requested number"
        return taken

    async def nothing(self, seconds: float = 0.3) -> None:
        """Asserts that no message arrives for a while."""
        receiving = asyncio.ensure_future(self.subscription.receive(1, MEGABYTE))
        done, _ = await asyncio.wait([receiving], timeout=seconds * self.harness.target.patience)
        if done:
            raise AssertionError(f"expected no message, received {receiving.result()}")
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)

    async def settle(self, *settlements: Settlement) -> list[SettleResult]:
        """Settles deliveries in one call."""
        async with asyncio.timeout(10 * self.harness.target.patience):
            return list(await self.subscription.settle(settlements))

    async def ack(self, *deliveries: Delivery) -> None:
        """Acknowledges deliveries, and asserts that the broker confirms it."""
        results = await self.settle(*(Settlement(delivery) for delivery in deliveries))
        assert results == [SettleResult.DONE] * len(deliveries)

    async def nack(
        self, delivery: Delivery, delay: float = 0.0, failures: int = 1, first_failure: float = 0.0
    ) -> None:
        """Fails a run as the scheduler does: by NACK, or with the message that `defer` returns."""
        settlement = Settlement(
            delivery, Action.NACK, delay=delay, failures=failures, first_failure=first_failure
        )
        deferred = self.subscription.defer(delivery.message, delay) if delay else None
        if deferred is not None:
            await self.harness.publish(deferred)
            settlement = Settlement(delivery)
        assert await self.settle(settlement) == [SettleResult.DONE]

    async def release(self, *deliveries: Delivery) -> None:
        """Releases deliveries, and asserts that the broker confirms it."""
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
        """Returns the delivery to run alone, and its start marks.

        This is `delivery`, or the message that was moved to the group's solo queue. Without a
        `delivery`, it is the first that arrives from either queue.
        """
        subscription = self.subscription
        assert isinstance(subscription, Isolation)
        receiving: asyncio.Future[Sequence[Delivery]] | None = None
        async with asyncio.timeout(within * self.harness.target.patience):
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
        """Receives and acknowledges messages until none arrives for a while."""
        taken: list[Delivery] = []
        while True:
            receiving = asyncio.ensure_future(self.subscription.receive(256, 64 * MEGABYTE))
            done, _ = await asyncio.wait([receiving], timeout=quiet * self.harness.target.patience)
            if not done:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
                return taken
            batch = receiving.result()
            await self.ack(*batch)
            taken += batch


class TransportHarness:
    """A part of a broker that belongs to one case: transports, topics and groups.

    Attributes:
        target: the transport under test.
        transport: an open transport, the first one of the case.
    """

    def __init__(self, target: TransportTarget) -> None:
        self.target = target
        self.transport: Transport
        self._unique = uuid.uuid4().hex[:12]
        self._transports: list[Transport] = []
        self._senders: list[asyncio.Task[None]] = []

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities that the transport claims."""
        return self.transport.capabilities

    async def connect(self, **options: Any) -> Transport:
        """Opens another transport on the same broker, as another process would."""
        settings = TransportSettings(
            url=TransportURL.parse(self.target.url), options={**self.target.options, **options}
        )
        transport = transports.create(settings)
        await transport.open()
        self._transports.append(transport)
        return transport

    async def reopen(self) -> None:
        """Restarts: closes every transport, and opens a new one as `transport`."""
        await self._close_transports()
        self.transport = await self.connect()

    async def close(self) -> None:
        """Closes every transport."""
        await self.stop_senders()
        await self._close_transports()

    async def stop_senders(self) -> None:
        """Publishes nothing more in the background."""
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    async def _close_transports(self) -> None:
        while self._transports:
            await self._transports.pop().close()

    def topic(self, name: str = "orders") -> str:
        """Returns the name of a topic that no other case uses."""
        return f"{name}.{self._unique}"

    def group(self, name: str = "billing") -> str:
        """Returns the name of a group that no other case uses."""
        return f"{name}-{self._unique}"

    def dead_letter_topic(self, topic: str, group: str | None = None) -> str:
        """Returns the dead-letter topic of a group."""
        return f"{topic}..{group or self.group()}..dead"

    def settings(
        self, topic: str, group: str | None = None, **fields: Any
    ) -> SubscriptionSettings:  # Any: as in SubscriptionSettings
        """Returns the settings of a subscription."""
        group = group or self.group()
        defaults: dict[str, Any] = {
            "name": f"{topic}/{group}",
            "dead_letter_topics": (self.dead_letter_topic(topic, group),),
            "lease": self.target.lease,
        }
        return SubscriptionSettings(topic=topic, group=group, **{**defaults, **fields})

    async def join(
        self,
        topic: str,
        group: str | None = None,
        *,
        transport: Transport | None = None,
        **fields: Any,
    ) -> Member:
        """Creates the topology, and joins the group."""
        transport = transport or self.transport
        settings = self.settings(topic, group, **fields)
        listener = Listener()
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        return Member(self, await transport.subscribe(settings, listener), listener)

    def message(self, topic: str, payload: bytes | None = b"x", **fields: Any) -> Message:
        """Returns a message with an id of its own."""
        fields.setdefault("id", uuid.uuid4().hex)
        return Message(topic=topic, payload=payload, **fields)

    async def publish(self, *messages: Message, transport: Transport | None = None) -> None:
        """Publishes messages, and asserts that the broker confirms it."""
        if self.target.confirms_when_settled:
            sender = asyncio.create_task(self._until_confirmed(messages, transport))
            self._senders.append(sender)
            return
        async with asyncio.timeout(10 * self.target.patience):
            errors = await (transport or self.transport).submit(messages)
        assert list(errors) == [None] * len(messages)

    async def _until_confirmed(
        self, messages: Sequence[Message], transport: Transport | None
    ) -> None:
        """Publishes until everything is settled, as an outbox does."""
        while messages:
            errors = await (transport or self.transport).submit(messages)
            left = zip(messages, errors, strict=True)
            messages = [message for message, error in left if error is not None]
            transport = None  # it may have been closed
            await asyncio.sleep(0.02)

    async def send(self, topic: str, *payloads: bytes, key: bytes | None = None) -> list[Message]:
        """Publishes one message for each payload."""
        messages = [self.message(topic, payload, key=key) for payload in payloads]
        await self.publish(*messages)
        return messages

    def strongest_order(self) -> Ordering:
        """Returns PER_KEY if the transport claims it, else NONE."""
        return Ordering.PER_KEY if self.capabilities.per_key else Ordering.NONE


def payloads(deliveries: Iterable[Delivery]) -> list[bytes]:
    """Returns the payloads of deliveries."""
    return [delivery.message.payload or b"" for delivery in deliveries]


def numbers(start: int, stop: int) -> list[bytes]:
    """Returns the numbers from `start` up to `stop`, as payloads."""
    return [b"%d" % number for number in range(start, stop)]
