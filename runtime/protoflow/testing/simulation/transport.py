"""The transport of a simulated process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.clock import Clock
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import PublishError, TopologyError
from protoflow.message import Delivery, Message
from protoflow.testing.simulation.broker import SimulatedBroker
from protoflow.testing.simulation.link import Allowed, Host, Link
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.profiles import Lending, Profile
from protoflow.testing.simulation.queue_subscription import SimulatedSubscription
from protoflow.transport.interface import (
    Subscription,
    SubscriptionListener,
    Topology,
    TopologyMode,
)
from protoflow.transport.kit.submission import Submission
from protoflow.transport.lag import Lag
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.client import BrokerClient
from protoflow.transports.memory.dead_letters import MemoryDeadLetterStore
from protoflow.transports.memory.group import Group


class SimulatedTransport:
    """Implements `Transport` for one process.

    Args:
        host: the simulation.
        process: the process.
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
        """Disconnects. Unsettled messages become free when the broker notices."""
        while self.readers:
            await self.readers.pop().stop()
        while self.subscriptions:
            subscription = self.subscriptions.pop()
            await subscription.stop()
            await subscription.end()
            self.host.broker.leave(subscription.member, killed=False)

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates topics and groups."""
        self.dead_letters.sources.add(topology.subscriptions)
        if mode is TopologyMode.CREATE:
            await self.link.call("ensure", lambda _: self._make(topology))
        elif mode is TopologyMode.VERIFY:
            await self.link.call("ensure", lambda _: self._verify(topology))

    def _make(self, topology: Topology) -> None:
        for topic in topology.topics:
            self.broker.topic(topic)
        for settings in topology.subscriptions:
            for name in settings.dead_letter_topics:
                self.broker.make_dead_letters(name)
            self.broker.join(settings.topic, settings.group, settings.ordering, settings.start)

    def _verify(self, topology: Topology) -> None:
        topics = self.broker.topics
        missing = [f"topic {name}" for name in topology.topics if name not in topics]
        missing += [
            f"group {each.group} of topic {each.topic}"
            for each in topology.subscriptions
            if each.topic not in topics or each.group not in topics[each.topic].groups
        ]
        if missing:
            raise TopologyError(f"missing: {', '.join(missing)}", code=TOPOLOGY_MISSING)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes messages."""
        broker = self.host.broker
        submission = Submission(len(messages))

        def apply(allowed: Allowed) -> list[PublishError | None]:
            done = [message for index, message in enumerate(messages) if allowed(index)]
            failed = PublishError("the broker refused the message for now")
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
        subscription = SimulatedSubscription(
            self.link, self.host, self.clock, settings, watched, group
        )
        self.subscriptions.append(subscription)
        return subscription

    def _read_log(
        self, settings: SubscriptionSettings, listener: SubscriptionListener, group: Group
    ) -> Subscription:
        # Imported here, because it needs the Kafka client.
        from protoflow.testing.simulation.log_broker import LogBroker
        from protoflow.testing.simulation.log_subscription import LogSubscription

        broker = self.host.broker
        if not isinstance(broker, LogBroker):
            raise TypeError("this broker is not a log")
        reader = LogSubscription(
            broker, self.link, broker.open(group, settings.start), settings, listener,
            self.submit, self.clock,
        )  # fmt: skip
        self.readers.append(reader)
        return reader

    def health(self) -> str | None:
        """Returns the problem if the broker does not answer."""
        return "the broker does not answer" if self.host.broker.down else None

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the number of messages that a group has not finished."""
        return await self.link.call("lag", lambda _: self.host.broker.lag(topic, group))

    def _flapped(self) -> None:
        """Notes that the connection ended, which frees all messages that were lent over it."""
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
    """Returns the client for dead letters: the broker itself, without faults."""
    client = BrokerClient(clock, host.broker.options, require_subscriber=False)
    client.broker = host.broker.state
    return client


class _Watched:
    """A listener that reports lost leases to the simulation, and passes every call on."""

    def __init__(self, transport: SimulatedTransport, listener: SubscriptionListener) -> None:
        self._transport = transport
        self._listener = listener
        self.shards_revoked = listener.shards_revoked
        self.health_changed = listener.health_changed
        self.suspects_waiting = listener.suspects_waiting

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Reports lost leases."""
        self._transport.host.lost(self._transport.process, deliveries)
        self._listener.deliveries_lost(deliveries)
