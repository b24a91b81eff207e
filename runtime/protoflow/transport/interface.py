"""The interface between the runtime and a broker.

A transport knows this module and the leaves below it, never the service and never
another transport. Third parties plug in by the entry point group `protoflow.transports`:
the name is the URL scheme, the object a `TransportFactory`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from protoflow.clock import Clock
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering, Start
from protoflow.contract.topics import TopologyMode as TopologyMode
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import PublishError
from protoflow.message import Delivery, Message, Settlement, SettleResult

if TYPE_CHECKING:
    import asyncio


@dataclass_record
class Capabilities:
    """What a transport can do. Each claim is proved by the acceptance suite.

    Attributes:
        at_least_once: an unsettled delivery comes again.
        durable: messages survive a restart of every process, the broker's included.
        groups: each group gets every message, its members share them.
        processes: several processes may share one group.
        per_key: order per key over all processes of a group.
        per_partition: order per partition over all processes of a group.
        retains: messages published before a group exists reach it with start EARLIEST.
        delayed_publish: `Message.delay` is kept.
        max_delay: the longest delay in seconds that one publish can have; None is any.
        broker_retry: waits longer than `retry_in_place` are kept by the broker.
        retry_lateness: seconds by which such a wait may be too long.
        remembers_failures: failed runs survive the process at every NACK.
        counts_deliveries: `Delivery.deliveries` is the broker's count.
        atomic: `Settlement.outputs` and the settlement become visible together.
        atomic_on_demand: ... but only where the policy says `atomic`, for it has a price.
        dead_letters: dead letters can be listed, shown, replayed, purged and counted.
        tombstones: `payload=None` arrives as None.
        leases: a delivery not settled in time is given to another process.
        lag: the transport knows how much waits in a group.
        broadcast: ephemeral groups, one a process.
        max_message_bytes: what the broker refuses beyond; None is unknown or unlimited.
        proves_killers: start marks survive the process (`Isolation`), so a message that kills
            it is proved and dead-lettered. Without: such a message is run alone, with growing
            waits, and never dead-lettered for having been handed out too often.
    """

    at_least_once: bool = True
    durable: bool = False
    groups: bool = True
    processes: bool = False
    per_key: bool = False
    per_partition: bool = False
    retains: bool = False
    delayed_publish: bool = False
    max_delay: float | None = None
    broker_retry: bool = False
    retry_lateness: float = 1.0
    remembers_failures: bool = False
    counts_deliveries: bool = False
    atomic: bool = False
    atomic_on_demand: bool = False
    dead_letters: bool = False
    tombstones: bool = True
    leases: bool = False
    lag: bool = False
    broadcast: bool = False
    max_message_bytes: int | None = None
    proves_killers: bool = False


@dataclass_record
class SubscriptionSettings:
    """One topic read by one group; all that a transport needs to know of it.

    Attributes:
        name: the name for logs and readiness, `<topic>/<group>`.
        topic: the topic, namespace included.
        group: the group, namespace included.
        ordering: which messages must be handed out in turn.
        concurrency: how many handlers run at once in this process.
        max_in_flight: how many deliveries may be unsettled at once in this process.
        max_in_flight_bytes: the same in bytes.
        start: where a group without a position starts.
        broadcast: an ephemeral group of this process.
        atomic: outputs and settlement are demanded to be visible together.
        defers: failed runs may have waits that the broker must keep (see `Subscription.defer`).
        dead_letter_topics: where the letters of this group go, namespace included.
        lease: seconds before an unrenewed delivery may go to another process.
        max_hold: seconds for which a lease is renewed at most.
        rebalance_drain: seconds that handlers get when their shard moves.
    """

    name: str
    topic: str
    group: str
    ordering: Ordering = Ordering.NONE
    concurrency: int = 16
    max_in_flight: int = 256
    max_in_flight_bytes: int = 64 * 1024 * 1024
    start: Start = Start.EARLIEST
    broadcast: bool = False
    atomic: bool = False
    defers: bool = True
    dead_letter_topics: tuple[str, ...] = ()
    lease: float = 30.0
    max_hold: float = 3600.0
    rebalance_drain: float = 30.0


@dataclass_record
class Topology:
    """Everything that a service consumes and publishes."""

    subscriptions: tuple[SubscriptionSettings, ...] = ()
    topics: tuple[str, ...] = ()


@dataclass_record
class TransportSettings:
    """What the runtime tells a transport when it is made.

    Attributes:
        url: where the broker is.
        options: the transport's own tunables from config; unknown keys are refused.
        clock: the one source of time and randomness.
        client_name: how this process calls itself at the broker.
        connect_timeout: seconds before an unreachable broker is an error at start.
        ladder: the constant waits, in seconds, of brokers that keep retries in queues.
        exchange: the common prefix of what the transport owns, `protoflow`.
        require_subscriber: publishing to a topic that nobody consumes is an error.
        on_lost_position: `stop`, `earliest` or `latest` when a group's position is gone.
    """

    url: TransportURL
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: values come from TOML
    clock: Clock = field(default_factory=Clock)
    client_name: str = "protoflow"
    connect_timeout: float = 30.0
    ladder: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)
    exchange: str = "protoflow"
    require_subscriber: bool = False
    on_lost_position: str = "stop"


class SubscriptionListener(Protocol):
    """What a subscription tells the scheduler, on the event loop."""

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

    It renews its leases by itself, and reconnects by itself; `health_changed` tells.
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
        run. Raises TransportError: it cannot be told now."""
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
        rows that are due; what is in flight here is not counted. None: cannot be told now. Called
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
