"""The memory transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from protoflow.error_codes import LEASE_LOST, TOPOLOGY_MISSING
from protoflow.errors import CapabilityError, PublishError, TopologyError, TransportError
from protoflow.message import Message, Settlement
from protoflow.transport.interface import (
    Capabilities,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.lag import Lag
from protoflow.transports.memory.broker import MemoryOptions, shared
from protoflow.transports.memory.client import BrokerClient, check
from protoflow.transports.memory.dead_letters import MemoryDeadLetterStore
from protoflow.transports.memory.subscription import MemorySubscription


class MemoryTransport(BrokerClient):
    """Topics and groups in the memory of this process."""

    def __init__(self, settings: TransportSettings, options: MemoryOptions) -> None:
        super().__init__(settings.clock, options, require_subscriber=settings.require_subscriber)
        self.dead_letters = MemoryDeadLetterStore(self)
        self._name = "".join(host for host, _ in settings.url.hosts) + settings.url.path
        self._subscriptions: list[MemorySubscription] = []
        self.capabilities = Capabilities(
            per_key=True,
            per_partition=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            retry_lateness=0.1,
            persists_attempts=True,
            counts_deliveries=True,
            atomic=True,
            dead_letters=True,
            ordered_replays=True,
            lag=True,
            broadcast=True,
            proves_killers=True,
            max_message_bytes=options.max_message_bytes,
        )

    async def open(self) -> None:
        """Finds the broker of this name."""
        if self._name:
            self.broker = shared(self._name)

    async def close(self) -> None:
        """Gives back unsettled messages."""
        while self._subscriptions:
            self._subscriptions.pop().leave(killed=False)

    def vanish(self) -> None:
        """Leaves like a killed process, for tests: nothing is settled, start marks stay, and other
        members get the unsettled messages immediately."""
        while self._subscriptions:
            self._subscriptions.pop().leave(killed=True)

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates topics and groups, or reports the missing ones."""
        self.dead_letters.sources.add(topology.subscriptions)
        with self.broker.lock:
            if mode is TopologyMode.CREATE:
                for topic in topology.topics:
                    self.broker.topic(topic)
                for settings in topology.subscriptions:
                    # A broadcast group belongs to its member; nobody would empty another one.
                    if settings.broadcast:
                        self._make_dead_letters(settings)
                    else:
                        self._join(settings)
            elif mode is TopologyMode.VERIFY:
                self._verify(topology)

    def _verify(self, topology: Topology) -> None:
        topics = self.broker.topics
        missing = [f"topic {name}" for name in topology.topics if name not in topics]
        missing += [
            f"group {item.group} of topic {item.topic}"
            for item in topology.subscriptions
            if not item.broadcast
            and (item.topic not in topics or item.group not in topics[item.topic].groups)
        ]
        if missing:
            raise TopologyError(f"missing in memory: {', '.join(missing)}", code=TOPOLOGY_MISSING)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes immediately."""
        future: asyncio.Future[Sequence[PublishError | None]]
        future = asyncio.get_running_loop().create_future()
        sizes: list[int] = []
        with self.broker.lock:
            errors = self.admit(messages, sizes, bounded=True)
            taken: Sequence[Message] = messages
            if len(sizes) < len(messages):
                taken = [
                    message
                    for message, error in zip(messages, errors, strict=True)
                    if error is None
                ]
            self.broker.publish(taken, self.options, self.clock.now(), sizes)
        future.set_result(errors)
        return future

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> MemorySubscription:
        """Joins the group, which is created if necessary."""
        with self.broker.lock:
            if settings.broadcast:
                group = self.broker.join_alone(settings.topic, settings.group, settings.ordering)
                self._make_dead_letters(settings)
            else:
                group = self._join(settings)
            subscription = MemorySubscription(self, settings, group)
        self._subscriptions.append(subscription)
        return subscription

    def health(self) -> str | None:
        """Returns None, because memory is always available."""
        return None

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the unfinished messages of the group."""
        with self.broker.lock:
            home = self.broker.topics.get(topic)
            if home is None or group not in home.groups:
                return Lag(messages=0)
            oldest = min((entry.time for entry in home.groups[group].unfinished()), default=None)
            messages = home.groups[group].size
        age = None if oldest is None else max(0.0, self.clock.now() - oldest)
        return Lag(messages=messages, seconds=age)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        """Publishes and settles at the end of the block."""
        transaction = MemoryTransaction()
        yield transaction
        outputs = [output for each in transaction.settlements for output in each.outputs]
        with self.broker.lock:
            for error in self.admit([*transaction.messages, *outputs], [], bounded=False):
                if error is not None:
                    raise error
            if any(check(settlement) is not None for settlement in transaction.settlements):
                raise TransportError(
                    "a delivery of the transaction was settled before", code=LEASE_LOST
                )
            self.broker.publish(transaction.messages, self.options, self.clock.now())
            self.settle(transaction.settlements)

    def _join(self, settings: SubscriptionSettings) -> Any:
        self._make_dead_letters(settings)
        return self.broker.join(settings.topic, settings.group, settings.ordering, settings.start)

    def _make_dead_letters(self, settings: SubscriptionSettings) -> None:
        for name in settings.dead_letter_topics:
            self.broker.make_dead_letters(name)


class MemoryTransaction:
    """The messages and settlements of a transaction."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.settlements: list[Settlement] = []

    @property
    def connection(self) -> Any:
        """Raises CapabilityError, because there is no connection."""
        raise CapabilityError("memory:// has no database connection; use sqlite or postgresql")

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit."""
        self.messages += messages

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit."""
        self.settlements += settlements
