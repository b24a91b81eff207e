"""The transport of a simulated process: the kit's own subscription over the simulated broker."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Collection, Sequence
from dataclasses import replace

from protoflow import wire
from protoflow.clock import Clock
from protoflow.errors import PublishError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.testing.simulation.broker import SimulatedBroker
from protoflow.testing.simulation.link import Allowed, Host, Link
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.profiles import Lending, Profile
from protoflow.transport.interface import (
    Subscription,
    SubscriptionListener,
    Topology,
    TopologyMode,
)
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.submission import Submission
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.client import BrokerClient
from protoflow.transports.memory.dead_letters import MemoryDeadLetterStore
from protoflow.transports.memory.group import Group

_UNKNOWN = SettleResult.UNKNOWN
#: Seconds after which the broker is asked though it has not woken anybody.
_POLL = 5.0


class SimulatedTransport:
    """Implements `Transport` for one process.

    Args:
        host: the simulation.
        process: whose transport it is.
        service: the name of its service.
        clock: its clock.
    """

    def __init__(self, host: Host, process: Process, service: str, clock: Clock) -> None:
        self.host = host
        self.process = process
        self.clock = clock
        self.link = Link(host, process, service, self._flapped)
        self.capabilities = host.broker.profile.capabilities
        self.broker = host.broker.state
        self.dead_letters = MemoryDeadLetterStore(_client(host, clock))
        self.subscriptions: list[SimulatedSubscription] = []
        self.readers: list[Subscription] = []

    async def open(self) -> None:
        """Connects."""
        await self.link.call("open", lambda _: None)

    async def close(self) -> None:
        """Gives back what was not settled."""
        while self.readers:
            await self.readers.pop().stop()
        while self.subscriptions:
            subscription = self.subscriptions.pop()
            await subscription.close()
            self.host.broker.leave(subscription.member, killed=False)

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes topics and groups."""
        self.dead_letters.sources.add(topology.subscriptions)
        await self.link.call("ensure", lambda _: self._make(topology))

    def _make(self, topology: Topology) -> None:
        for topic in topology.topics:
            self.broker.topic(topic)
        for settings in topology.subscriptions:
            for name in settings.dead_letter_topics:
                self.broker.make_dead_letters(name)
            self.broker.join(settings.topic, settings.group, settings.ordering, settings.start)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes."""
        broker = self.host.broker
        submission = Submission(len(messages))

        def apply(allowed: Allowed) -> list[PublishError | None]:
            done = [message for index, message in enumerate(messages) if allowed(index)]
            failed = PublishError("the broker refused it for now")
            return broker.publish(done) + [failed] * (len(messages) - len(done))

        def answered(answer: asyncio.Future[list[PublishError | None]]) -> None:
            error = answer.exception()
            if error is not None:
                submission.finish(PublishError(str(error)))
                return
            for index, result in enumerate(answer.result()):
                submission.done(index, result)

        first = messages[0].id if messages else ""
        self.link.call("submit", apply, first, len(messages)).add_done_callback(answered)
        return submission.future

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Joins the group."""
        groups = self.broker.topic(settings.topic).groups
        group = await self.link.call("subscribe", lambda _: groups[settings.group])
        watched = _Watched(self, listener)
        if self.host.broker.profile.lending is Lending.PARTITION:
            return self._read_log(settings, watched, group)
        subscription = SimulatedSubscription(self, settings, watched, group)
        self.subscriptions.append(subscription)
        return subscription

    def _read_log(
        self, settings: SubscriptionSettings, listener: SubscriptionListener, group: Group
    ) -> Subscription:
        # Here, for they need the client of Kafka.
        from protoflow.testing.simulation.log_broker import LogBroker
        from protoflow.testing.simulation.log_subscription import LogSubscription

        broker = self.host.broker
        if not isinstance(broker, LogBroker):
            raise TypeError("the broker has no logs")
        reader = LogSubscription(
            broker, self.link, broker.open(group), settings, listener, self.submit, self.clock
        )
        self.readers.append(reader)
        return reader

    def health(self) -> str | None:
        """Whether the broker answers."""
        return "the broker does not answer" if self.host.broker.down else None

    def _flapped(self) -> None:
        """The connection ended: what was lent over it is free, and held here no more."""
        broker = self.host.broker
        mine = [subscription.member for subscription in self.subscriptions]
        broker.give_back(lambda hold: hold.holder in mine, killed=False)
        for subscription in self.subscriptions:
            self.host.loop.call_soon(subscription.lose, context=subscription.member.context)


def broker_of(profile: Profile) -> type[SimulatedBroker]:
    """Returns the class of the broker for a transport."""
    if profile.lending is not Lending.PARTITION:
        return SimulatedBroker
    from protoflow.testing.simulation.log_broker import LogBroker

    return LogBroker


def _client(host: Host, clock: Clock) -> BrokerClient:
    """Returns what the store of dead letters works on: the broker itself, never disturbed."""
    client = BrokerClient(clock, host.broker.options, require_subscriber=False)
    client.broker = host.broker.state
    return client


class _Watched:
    """A listener that says which leases were lost, and passes everything on."""

    def __init__(self, transport: SimulatedTransport, listener: SubscriptionListener) -> None:
        self._transport = transport
        self._listener = listener
        self.shards_revoked = listener.shards_revoked
        self.health_changed = listener.health_changed
        self.suspects_waiting = listener.suspects_waiting

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Leases were lost."""
        self._transport.host.lost(self._transport.process, deliveries)
        self._listener.deliveries_lost(deliveries)


class Member:
    """A subscription as the broker knows it; see `holds.Holder`."""

    gone = False  # for the group: what it holds is free when the broker says so

    def __init__(
        self, transport: SimulatedTransport, settings: SubscriptionSettings, group: Group
    ) -> None:
        self.name = str(transport.process)
        self.settings = settings
        self.group = group
        self.lease = settings.lease
        self.seen = transport.host.loop.now
        self.subscription: SimulatedSubscription | None = None
        self.context = contextvars.copy_context()
        self._link = transport.link
        self._host = transport.host
        self._woken = False
        group.members[self] = None

    @property
    def dead(self) -> bool:
        """Whether its process is dead, which the broker does not know."""
        return not self._link.process.alive

    def wake(self) -> None:
        """Notifies the process, which takes a moment."""
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
        self, transport: SimulatedTransport, settings: SubscriptionSettings,
        listener: SubscriptionListener, group: Group,
    ) -> None:  # fmt: skip
        profile = transport.host.broker.profile
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
        super().__init__(source, settings, listener, transport.clock)
        self.member = Member(transport, settings, group)
        self.member.subscription = self
        self._broker: SimulatedBroker = transport.host.broker
        self._link = transport.link
        self._retries = self._broker.place_of(settings)

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery itself: its identity lasts."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        return delivery, await self._mark(delivery, 0)

    async def mark(self, delivery: Delivery) -> None:
        """One start mark more."""
        await self._mark(delivery, 1)

    async def clear(self, delivery: Delivery) -> None:
        """No start marks."""
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
