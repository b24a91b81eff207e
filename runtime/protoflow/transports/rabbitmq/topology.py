"""The exchanges, queues and bindings that a service needs.

No argument of a queue depends on a delivery policy or on the ladder's use of it: arguments
cannot be changed once a queue is made, so the next deploy would be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from pamqp.commands import Queue as QueueMethods

from protoflow.contract.spec import Ordering
from protoflow.transport.interface import SubscriptionSettings, Topology
from protoflow.transports.rabbitmq.codec import KEY
from protoflow.transports.rabbitmq.names import DELAY_BITS, Names, milliseconds

Arguments: TypeAlias = dict[str, str | int | bool]

#: A constant, far above any policy's: the runtime's own limit is the one that works.
DELIVERY_LIMIT = 1000
_UNLIMITED_FROM = (4, 0)  # before, no limit is the default and -1 is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange; all are durable.

    Attributes:
        internal: only the broker publishes there: what is dead-lettered.
    """

    name: str
    kind: str
    internal: bool = False
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A quorum queue."""

    name: str
    arguments: Arguments = field(default_factory=dict)

    @property
    def declaration(self) -> QueueMethods.Declare:
        """How it is declared."""
        return QueueMethods.Declare(
            queue=self.name, durable=True, arguments={"x-queue-type": "quorum", **self.arguments}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What goes from an exchange to a queue, or to another exchange."""

    source: str
    target: str
    key: str
    to_exchange: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything needed.

    Attributes:
        exchanges: exchanges.
        queues: queues.
        bindings: bindings.
        absent: queues that must not be there, each with what it means if one is.
        together: pairs of queues of which both are there or none, with the same.
    """

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()
    together: tuple[tuple[str, str, str], ...] = ()


class Planner:
    """Says what a topology needs on this server."""

    def __init__(self, names: Names, ladder: Sequence[float], version: tuple[int, int]) -> None:
        self._names = names
        self._ladder = ladder
        self._version = version

    def plan(self, topology: Topology) -> Plan:
        """What the topology needs."""
        names = self._names
        exchanges = {
            names.exchange: Exchange(name=names.exchange, kind="topic"),
            names.overflow: Exchange(name=names.overflow, kind="direct"),
            names.retry: Exchange(name=names.retry, kind="direct"),
            names.back: Exchange(name=names.back, kind="direct", internal=True),
            names.delay(-1): due(names),
        }
        queues: dict[str, Queue] = {}
        bindings: dict[Binding, None] = {}
        absent: dict[str, str] = {}
        together: list[tuple[str, str, str]] = []
        for subscription in topology.subscriptions:
            if subscription.broadcast:
                continue
            plan = self._group(subscription)
            exchanges |= {exchange.name: exchange for exchange in plan.exchanges}
            queues |= {queue.name: queue for queue in plan.queues}
            bindings |= dict.fromkeys(plan.bindings)
            absent |= dict(plan.absent)
            together += plan.together
        return Plan(
            exchanges=tuple(exchanges.values()),
            queues=tuple(queues.values()),
            bindings=tuple(bindings),
            absent=tuple(absent.items()),
            together=tuple(together),
        )

    def _group(self, settings: SubscriptionSettings) -> Plan:
        names, topic, group = self._names, settings.topic, settings.group
        own = names.group(topic, group)
        sharded = names.shards > 1
        hashing = Exchange(name=own, kind="x-consistent-hash", arguments={"hash-header": KEY})
        bindings = [
            Binding(source=source, target=own, key=key, to_exchange=sharded)
            for source, key in (
                (names.exchange, names.routing_key(topic)),
                (names.delay(-1), names.delayed_key("*" * DELAY_BITS, topic)),
                (names.retry, own),
                (names.back, own),
            )
        ]
        if sharded:
            bindings += (
                Binding(source=own, target=names.queue(topic, group, shard), key="1")
                for shard in range(names.shards)
            )
        limits = {"x-delivery-limit": DELIVERY_LIMIT, **dead_lettering(names.overflow, own)}
        queues = [
            Queue(name=names.queue(topic, group, shard), arguments=limits)
            for shard in range(names.shards)
        ]
        waiting = [*self._isolating(settings)]
        if settings.needs_broker_retry:
            waiting += (self._rung(settings, seconds) for seconds in self._ladder)
        queues += waiting
        bindings += (
            Binding(source=names.retry, target=queue.name, key=queue.name) for queue in waiting
        )
        letters = self._letters(settings)
        queues += letters.queues
        bindings += letters.bindings
        return replace(
            self._shards(topic, group),
            exchanges=(hashing,) if sharded else (),
            queues=tuple(queues),
            bindings=tuple(bindings),
        )

    def _rung(self, settings: SubscriptionSettings, seconds: float) -> Queue:
        names, topic, group = self._names, settings.topic, settings.group
        return Queue(
            name=names.rung(topic, group, seconds),
            arguments={
                "x-message-ttl": milliseconds(seconds),
                **dead_lettering(names.back, names.group(topic, group)),
            },
        )

    def _isolating(self, settings: SubscriptionSettings) -> Iterator[Queue]:
        """The queues that prove killers and, where order counts, choose who consumes."""
        names, topic, group = self._names, settings.topic, settings.group
        if settings.ordering is Ordering.NONE:
            yield self._unlimited(names.solo(topic, group))
            return
        for shard in range(names.shards):
            yield self._unlimited(names.marks(topic, group, shard))
            yield self._unlimited(
                names.lock(topic, group, shard), {"x-single-active-consumer": True}
            )

    def _letters(self, settings: SubscriptionSettings) -> Plan:
        """The dead-letter queues: for what we publish, and for what the broker gives up."""
        names, own = self._names, self._names.group(settings.topic, settings.group)
        queues: list[Queue] = []
        bindings: list[Binding] = []
        for topic in settings.dead_letter_topics:
            queue = self._unlimited(names.dead_letters(topic))
            queues.append(queue)
            bindings += (
                Binding(source=names.exchange, target=queue.name, key=names.routing_key(topic)),
                Binding(source=names.overflow, target=queue.name, key=own),
            )
        return Plan(queues=tuple(queues), bindings=tuple(bindings))

    def _unlimited(self, name: str, arguments: Arguments | None = None) -> Queue:
        """A queue that drops nothing, however often it is looked at."""
        limit: Arguments = {"x-delivery-limit": -1} if self._version >= _UNLIMITED_FROM else {}
        return Queue(name=name, arguments={**limit, **(arguments or {})})

    def _shards(self, topic: str, group: str) -> Plan:
        """How another number of shards is noticed: keys would move, and so overtake."""
        names = self._names
        reason = (
            f"group {group} of {topic} was made with another number of shards than "
            f"{names.shards}: set option shards as it was, or stop its publishers, let it work "
            f"off its queues with the old number, and delete {names.group(topic, group)} and "
            "the queues whose names begin with it once they are empty"
        )
        first, beyond = names.shard(topic, group, 0), names.shard(topic, group, names.shards)
        if names.shards == 1:
            return Plan(absent=((first, reason),))
        last = names.shard(topic, group, names.shards - 1)
        return Plan(
            absent=((names.group(topic, group), reason), (beyond, reason)),
            together=((first, last, reason),),
        )


def due(names: Names) -> Exchange:
    """The exchange for what was delayed and is due."""
    return Exchange(
        name=names.delay(-1), kind="topic", arguments={"alternate-exchange": names.nobody}
    )


def dead_lettering(exchange: str, key: str | None) -> Arguments:
    """The arguments of a queue from which messages go on; without a key they keep theirs."""
    # At least once: without it a message is gone when its target does not answer.
    return {
        "x-dead-letter-exchange": exchange,
        **({} if key is None else {"x-dead-letter-routing-key": key}),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
