"""The interface between the runtime and a broker.

A transport imports this module and the modules below it, never the service or another transport.
Third parties add a transport through the entry point group `protoflow.transports`: the name is the
URL scheme, and the object is a `TransportFactory`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        """Shards move to another process. It returns when their work is settled; after `drain`
        seconds, handlers that still run are cancelled."""

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Leases were lost: their handlers are cancelled, and their results are not settled."""

    def health_changed(self, healthy: bool, detail: str) -> None:
        """The subscription stopped working, or works again; readiness follows."""

    def suspects_waiting(self) -> None:
        """The solo queue of the group has messages that must run alone. The scheduler takes them
        with `Isolation.isolate(None)` when nothing else runs in the process."""


class Subscription(Protocol):
    """The deliveries of one topic to one group in this process.

    It renews leases and reconnects by itself, and reports outages by `health_changed`.
    """

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Waits for at least one delivery. Returns at most `max_messages`; only the first may
        exceed `max_bytes`. Returns none when the subscription is stopped. If the call is cancelled,
        its deliveries are returned by the next call or given back by `stop`. Raises TransportError
        for a permanent failure."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles, in one request if the broker can. Returns one result for each settlement, in
        order. Each settlement
        succeeds or fails by itself. The future fails only with a TransportError, which means
        UNKNOWN for all. The scheduler repeats settlements that are UNKNOWN."""
        ...

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns the message to publish so that only this group gets `message` again after `delay`
        seconds; None if a NACK keeps the wait."""
        ...

    def pause(self, shards: Collection[str | int]) -> None:
        """Stops deliveries of these shards until `resume`."""

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause`."""

    async def stop(self) -> None:
        """Stops fetching, gives back messages that were not handed out, and waits for settlements
        in progress. Idempotent. It is cancelled at the deadline of the shutdown, and must then
        leave no task running."""


@runtime_checkable
class Isolation(Protocol):
    """Optional, with the capability `proves_killers`: start marks of suspects.

    A subscription implements it. The scheduler calls it for suspects only, one at a time in
    the whole process, when nothing else runs there and everything is settled.
    """

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery to run alone now, and its number of start marks without an end.

        If the message has a permanent identity, this is `delivery` itself. Otherwise `delivery` is
        moved to the group's solo queue (confirmed, then acknowledged), and the first message of
        that queue is taken. With None, only the solo queue is asked. Returns None if there is
        nothing to run. Raises TransportError if this is unknown now."""
        ...

    async def mark(self, delivery: Delivery) -> None:
        """Writes another start mark, which is durable on return. Raises TransportError: the
        delivery
        must not run now."""

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks, because the run ended or did not begin. It is called before the
        delivery is settled. If it raises TransportError, the call is repeated."""


@runtime_checkable
class Availability(Protocol):
    """Optional: how many messages wait in a subscription, for the stall watchdog."""

    async def available(self) -> int | None:
        """Returns how many messages this process could get now: the lag of its shards, or the rows
        that are due, without messages in flight. None: unknown. It is called rarely, and only after
        the scheduler has been idle for a while."""
        ...


@runtime_checkable
class EndsIntake(Protocol):
    """Optional: a subscription whose senders wait learns early that nothing more is received."""

    def end_intake(self) -> None:
        """Gives back messages that were not handed out. It is called when `receive` is not called
        any more, before the last handlers have finished; `stop` follows."""


class Transport(Protocol):
    """The connection to a broker."""

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the transport; after `open`, those of the server."""
        ...

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError or AuthenticationError."""

    async def close(self) -> None:
        """Flushes and disconnects. Idempotent."""

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies the topology, and never changes what exists. Raises TopologyError
        that lists everything that is missing or differs."""

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes, in the order of the calls. Each result is None when the message is durable,
        otherwise its error: a PublishRefusedError if publishing again cannot help, another
        PublishError if it may. Each message succeeds or fails by itself. It never raises for a
        single message."""
        ...

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Joins the group. A service calls `ensure` with all its subscriptions before, so
        a transport may join once for all topics of a group; nothing is received before all
        subscriptions of the service have joined."""
        ...

    def health(self) -> str | None:
        """Returns None if the broker can be reached, otherwise the problem."""
        ...


@runtime_checkable
class ReportsWarnings(Protocol):
    """Optional: problems that operators must know and that stop nothing else in this process."""

    def warnings(self) -> Mapping[str, str]:
        """Returns the problems by part. They do not affect readiness."""
        ...


@runtime_checkable
class NamesTopics(Protocol):
    """Optional: the options name topics. The start warns of those that no handler uses."""

    def topics_of_options(self) -> Mapping[str, Collection[str]]:
        """Returns the topics that each option names, with the namespace."""
        ...


class TransportFactory(Protocol):
    """The type of an entry point of the group `protoflow.transports`."""

    def __call__(self, settings: TransportSettings) -> Transport:
        """Returns a transport that is not yet open. Raises ConfigError for bad options."""
        ...


class Transaction(Protocol):
    """Messages and settlements that become visible together."""

    @property
    def connection(self) -> Any:  # Any: the database's own connection type
        """The database connection, for the caller's own writes. Raises CapabilityError on other
        brokers."""
        ...

    async def publish(self, *messages: Message) -> None:
        """Publishes on commit."""

    async def settle(self, *settlements: Settlement) -> None:
        """Settles on commit."""


@runtime_checkable
class Transactional(Protocol):
    """Optional: transactions."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begins a transaction: commits at the end, rolls back on an exception."""
        ...


@runtime_checkable
class SqlLog(Protocol):
    """Optional: topics are tables of a database. So the application can publish in its own
    transaction, on its own connection to the same database."""

    dialect: Dialect

    async def insertion(self, messages: Sequence[Message]) -> Insertion:
        """Returns a statement that publishes messages when its transaction commits. Raises
        PublishError."""
        ...

    def published(self, topics: Collection[str]) -> None:
        """Wakes consumers of these topics, because a transaction may have committed."""
