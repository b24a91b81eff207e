"""The interface between the runtime and a broker.

A transport knows this module and the leaves below it, never the service and never
another transport. Third parties plug in by the entry point group `protoflow.transports`:
the name is the URL scheme, the object a `TransportFactory`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from protoflow.contract.topics import TopologyMode as TopologyMode
from protoflow.errors import PublishError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport.capabilities import Capabilities as Capabilities
from protoflow.transport.settings import SubscriptionSettings as SubscriptionSettings
from protoflow.transport.settings import Topology as Topology
from protoflow.transport.settings import TransportSettings as TransportSettings

if TYPE_CHECKING:
    import asyncio

    from protoflow.database.interface import Dialect, Insertion


class SubscriptionListener(Protocol):
    """What a subscription reports to the scheduler, on the event loop."""

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Shards move away: returns when their work is settled, at the latest after
        `drain` seconds, when handlers still running were cancelled."""

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Leases were lost: their handlers are cancelled, nothing more is settled."""

    def health_changed(self, healthy: bool, detail: str) -> None:
        """The subscription stopped or began to work again; readiness follows."""

    def suspects_waiting(self) -> None:
        """The group's own solo queue holds messages that are to be run alone: the scheduler
        asks for them with `Isolation.isolate(None)` when the process is quiet."""


class Subscription(Protocol):
    """The deliveries of one topic to one group in this process.

    It renews its leases by itself, and reconnects by itself; `health_changed` reports it.
    """

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """At least one delivery, waiting for it; at most `max_messages`, and bytes
        beyond `max_bytes` only in the first. Empty when the subscription is stopped.
        Cancelling loses nothing: what was taken comes with the next call, or is given
        back by `stop`. Raises TransportError when it can never go on."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles, in one go where the broker can; one result each, in order. Each
        succeeds or fails by itself: what is wrong with one never touches its neighbours. The
        future fails only with a TransportError, which stands for UNKNOWN for each. The
        scheduler repeats what is UNKNOWN."""
        ...

    def defer(self, message: Message, delay: float) -> Message | None:
        """The message to publish so that this group, and no other, gets `message` again
        after `delay` seconds; None where `settle` with NACK keeps the wait itself."""
        ...

    def pause(self, shards: Collection[str | int]) -> None:
        """No more deliveries from these shards until `resume`."""

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause`."""

    async def stop(self) -> None:
        """Takes nothing more, gives back what was taken and not handed out, waits until
        settlements on their way are confirmed. Idempotent. The caller bounds it: it is cancelled
        at the deadline of the shutdown, and must then leave nothing running."""


@runtime_checkable
class Isolation(Protocol):
    """Optional, with the capability `proves_killers`: start marks of suspects.

    A subscription implements it. The scheduler calls it for suspects only, one at a time in
    the whole process, when nothing else runs there and everything is settled.
    """

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery to run alone now, and how many start marks without an end it has.

        That is `delivery` itself where the message has an identity that lasts. Elsewhere
        `delivery` is moved to the group's solo queue (confirmed, then acknowledged), and what is
        first there is taken. With None only a solo queue is asked. None: there is nothing to
        run. Raises TransportError: it is unknown now."""
        ...

    async def mark(self, delivery: Delivery) -> None:
        """Writes one start mark more; durable when it returns. Raises TransportError: the
        delivery must not run now."""

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks: the run ended, or did not begin, while the process lives.
        Called before the delivery is settled. Raises TransportError: to be repeated."""


@runtime_checkable
class Availability(Protocol):
    """Optional: what a subscription could hand out, for the stall watchdog."""

    async def available(self) -> int | None:
        """How many messages this member could be handed now: the lag of its own shards, or the
        rows that are due; what is in flight here is not counted. None: unknown now. Called
        rarely, and only when the scheduler has had nothing to do for a while."""
        ...


class Transport(Protocol):
    """A broker."""

    @property
    def capabilities(self) -> Capabilities:
        """What this transport can do; after `open`, what this server can do."""
        ...

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError or AuthenticationError."""

    async def close(self) -> None:
        """Flushes and disconnects. Idempotent."""

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes or verifies what the topology needs. Raises TopologyError naming
        everything that is missing or differs; never changes what exists."""

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes. The order is fixed when this returns; each result is None when the
        message is durable, else its error: PublishRefusedError where no repetition can help, a
        PublishError where the same message may be published again later. Each succeeds or
        fails by itself. Never raises for a single message."""
        ...

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Joins the group. A service calls `ensure` with all its subscriptions before, so
        a transport may join once for all topics of a group; nothing is received before all
        subscriptions of the service have joined."""
        ...

    def health(self) -> str | None:
        """None when the broker is reachable, else what is wrong."""
        ...


class TransportFactory(Protocol):
    """What an entry point of the group `protoflow.transports` is."""

    def __call__(self, settings: TransportSettings) -> Transport:
        """A transport that is not yet open. Raises ConfigError for bad options."""
        ...


class Transaction(Protocol):
    """Messages and settlements that become visible together."""

    @property
    def connection(self) -> Any:  # Any: the database's own connection type
        """On SQL the connection, for writes of one's own; else raises CapabilityError."""
        ...

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit."""

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit."""


@runtime_checkable
class Transactional(Protocol):
    """Optional: transactions."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commits on leaving, rolls back on an exception."""
        ...


@runtime_checkable
class SqlLog(Protocol):
    """Optional: topics are tables of a database, so that a transaction of the application, on a
    connection of its own to the same database, can publish."""

    dialect: Dialect

    async def insertion(self, messages: Sequence[Message]) -> Insertion:
        """Returns what publishes messages when the transaction that runs it commits. Raises
        PublishError."""
        ...

    def published(self, topics: Collection[str]) -> None:
        """Wakes who consumes these topics: a transaction may have committed."""
