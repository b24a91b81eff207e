"""The exchanges, queues and bindings that a service needs.

No argument of a queue depends on a delivery policy or on the use of the ladder. Arguments cannot be
changed after a queue is created, so the next deployment would be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protoflow.contract.spec import Ordering
from protoflow.transport.interface import SubscriptionSettings, Topology
from protoflow.transports.rabbitmq.codec import KEY
from protoflow.transports.rabbitmq.names import DELAY_BITS, GroupNames, Names
from protoflow.transports.rabbitmq.retry_delays import retry_queues
from protoflow.transports.rabbitmq.topology import (
    Arguments,
    Binding,
    Exchange,
    Plan,
    Queue,
    dead_lettering,
    due,
)

#: A constant far above any policy, because the runtime's own limit applies.
DELIVERY_LIMIT = 1000
_UNLIMITED_FROM = (4, 0)  # in earlier versions there is no limit by default, and -1 is unknown


class TopologyPlanner:
    """Plans the needs of a topology on this server."""

    def __init__(self, names: Names, ladder: Sequence[float], version: tuple[int, int]) -> None:
        self._names = names
        self._ladder = ladder
        self._version = version

    def plan(self, topology: Topology) -> Plan:
        """Returns the plan of the topology."""
        names, plan = self._names, Plan()
        plan.add(
            Exchange(name=names.exchange, kind="topic"),
            Exchange(name=names.overflow, kind="direct"),
            Exchange(name=names.retry, kind="direct"),
            Exchange(name=names.back, kind="direct", internal=True),
            due(names),
        )
        for settings in topology.subscriptions:
            if not settings.broadcast:
                own = names.of(settings.topic, settings.group)
                self._add_group(plan, settings, own)
                self._add_dead_letters(plan, settings, own)
                self._check_shards(plan, settings, own)
        return plan

    def _add_group(self, plan: Plan, settings: SubscriptionSettings, own: GroupNames) -> None:
        names, topic, address = self._names, settings.topic, own.address
        sharded = names.shards > 1
        routes = [(names.retry, address), (names.back, address)]
        if own.source:
            plan.foreign[own.source] = f"which `topics.{topic!r}.source` names"
        else:
            due = names.delayed_key("*" * DELAY_BITS, topic)
            routes += (names.exchange, names.routing_key(topic)), (names.delay(-1), due)
        for source, key in routes:
            plan.add(Binding(source=source, target=address, key=key, to_exchange=sharded))
        if sharded:
            by_key: Arguments = {"hash-header": KEY}
            plan.add(Exchange(name=address, kind="x-consistent-hash", arguments=by_key))
        limits = {"x-delivery-limit": DELIVERY_LIMIT, **dead_lettering(names.overflow, address)}
        for queue in map(own.queue, own.shards):
            plan.add(Queue(name=queue, arguments=limits))
            if sharded:
                plan.add(Binding(source=address, target=queue, key="1"))
        waiting = *self._isolating(settings, own), *retry_queues(names, settings, self._ladder)
        for each in waiting:
            plan.add(each, Binding(source=names.retry, target=each.name, key=each.name))

    def _isolating(self, settings: SubscriptionSettings, own: GroupNames) -> Iterator[Queue]:
        """Adds the queues that prove killers and, with ordering, choose the consumer."""
        if settings.ordering is Ordering.NONE:
            yield self._unlimited(own.solo)
            return
        for shard in own.shards:
            yield self._unlimited(own.marks(shard))
            yield self._unlimited(own.lock(shard), {"x-single-active-consumer": True})

    def _add_dead_letters(
        self, plan: Plan, settings: SubscriptionSettings, own: GroupNames
    ) -> None:
        """Adds the dead-letter queues for messages from the runtime and from the broker."""
        names = self._names
        for topic in settings.dead_letter_topics:
            queue = self._unlimited(names.dead_letters(topic))
            plan.add(
                queue,
                Binding(source=names.exchange, target=queue.name, key=names.routing_key(topic)),
                Binding(source=names.overflow, target=queue.name, key=own.address),
            )

    def _unlimited(self, name: str, arguments: Arguments | None = None) -> Queue:
        """Adds a queue that drops no message, however often it is delivered."""
        limit: Arguments = {"x-delivery-limit": -1} if self._version >= _UNLIMITED_FROM else {}
        return Queue(name=name, arguments={**limit, **(arguments or {})})

    def _check_shards(self, plan: Plan, settings: SubscriptionSettings, own: GroupNames) -> None:
        """Detects a changed number of shards, which would move keys and break their order."""
        shards = self._names.shards
        reason = (
            f"group {settings.group} of {settings.topic} was created with a number of shards "
            f"other than {shards}: restore the option shards, or stop its publishers, let it "
            f"process its queues with the old number, and delete {own.address} and "
            "the queues whose names begin with it once they are empty"
        )
        if shards == 1:
            plan.absent[own.shard(0)] = reason
        else:
            plan.absent |= {own.address: reason, own.shard(shards): reason}
            plan.together.append((own.shard(0), own.shard(shards - 1), reason))
