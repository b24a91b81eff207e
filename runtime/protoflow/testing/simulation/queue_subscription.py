"""The subscription of a simulated process: the kit's own over the simulated broker."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Collection, Sequence
from dataclasses import replace

from protoflow import wire
from protoflow.clock import Clock
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.testing.simulation.broker import SimulatedBroker
from protoflow.testing.simulation.link import Allowed, Host, Link
from protoflow.testing.simulation.profiles import Lending
from protoflow.transport.interface import SubscriptionListener
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.group import Group

_UNKNOWN = SettleResult.UNKNOWN
#: Seconds after which the subscription asks the broker without a notification.
_POLL = 5.0


class Member:
    """A subscription, as the broker sees it; see `holds.Holder`."""

    gone = False  # for the group: only the broker decides when messages of a holder become free

    def __init__(
        self, link: Link, host: Host, settings: SubscriptionSettings, group: Group
    ) -> None:
        self.name = str(link.process)
        self.settings = settings
        self.group = group
        self.lease = settings.lease
        self.seen = host.loop.now
        self.subscription: SimulatedSubscription | None = None
        self.context = contextvars.copy_context()
        self._link = link
        self._host = host
        self._woken = False
        group.members[self] = None

    @property
    def dead(self) -> bool:
        """Returns whether its process is dead; the broker does not know this."""
        return not self._link.process.alive

    def wake(self) -> None:
        """Notifies the process after a short delay."""
        if self._woken or self.dead:
            return
        self._woken = True
        delay = self._host.choices.latency(f"{self._link.service}.wake")
        self._host.loop.call_later(delay, self._wake, context=self.context)

    def _wake(self) -> None:
        self._woken = False
        if self.subscription is not None:
            self.subscription.wake()


class SimulatedSubscription(QueueSubscription):
    """A member of a group; implements `Isolation`, too."""

    def __init__(
        self, link: Link, host: Host, clock: Clock, settings: SubscriptionSettings,
        listener: SubscriptionListener, group: Group,
    ) -> None:  # fmt: skip
        profile = host.broker.profile
        renews = profile.lending is not Lending.CONNECTION
        source = QueueSource(
            fetch=self._fetch,
            settle=self._settle,
            renew=self._renew if renews else None,
            poll=_POLL,
            lease=settings.lease,
            expires=profile.lending is Lending.EACH,
            defer=self._defer if profile.own_retries else None,
            available=self._available,
        )
        super().__init__(source, settings, listener, clock)
        self.member = Member(link, host, settings, group)
        self.member.subscription = self
        self._broker: SimulatedBroker = host.broker
        self._link = link
        self._retries = self._broker.place_of(settings)

    async def stop(self) -> None:
        """See `Subscription.stop`; other members of the group consume from now on."""
        await super().stop()
        if self.member in self.member.group.members:
            with contextlib.suppress(TransportError):
                await self._link.call("leave", lambda _: self._broker.retire(self.member))

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself, because its identity does not change."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        return delivery, await self._mark(delivery, 0)

    async def mark(self, delivery: Delivery) -> None:
        """Adds a start mark."""
        await self._mark(delivery, 1)

    async def clear(self, delivery: Delivery) -> None:
        """Removes all start marks."""
        if self._broker.held(delivery.receipt) is not None:
            await self._mark(delivery, -1)

    async def _mark(self, delivery: Delivery, change: int) -> int:
        token = delivery.receipt
        return await self._link.call("mark", lambda _: self._broker.mark(token, change))

    async def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        deliveries, due = await self._link.call(
            "fetch", lambda _: self._broker.claim(self.member, max_messages, max_bytes)
        )
        if due is not None:
            self.wake_after(due - self._broker.now())
        return deliveries

    def _settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        tokens = [each.delivery.receipt for each in settlements]

        def apply(allowed: Allowed) -> Sequence[SettleResult]:
            return [
                self._broker.settle(each, token) if allowed(index) else _UNKNOWN
                for index, (each, token) in enumerate(zip(settlements, tokens, strict=True))
            ]

        first = settlements[0].delivery.message.id
        return self._link.call("settle", apply, first, len(settlements))

    async def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        session = not deliveries or self._broker.profile.lending is Lending.SESSION
        held = [*self.leases.held.values()] if session else deliveries
        by_token = {each.receipt: each for each in held}
        gone = await self._link.call(
            "renew", lambda _: self._broker.renew(self.member, [*by_token])
        )
        return [by_token[token] for token in gone]

    async def _available(self) -> int:
        return self.member.group.available(self.member, self._broker.now())

    def _defer(self, message: Message, delay: float) -> Message:
        metadata = {**message.metadata, wire.PF_ORIGINAL_TOPIC: self.settings.topic}
        return replace(message, topic=self._retries, delay=delay, metadata=metadata)
