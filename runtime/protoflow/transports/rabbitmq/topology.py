"""The exchanges, queues and bindings that a service needs, and their declaration.

No argument of a queue depends on a delivery policy or on the ladder's use of it: arguments
cannot be changed once a queue is made, so the next deploy would be refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import aiormq.exceptions
from pamqp.base import Frame
from pamqp.commands import Exchange as ExchangeMethods
from pamqp.commands import Queue as QueueMethods

from protoflow.errors import AuthenticationError, TopologyError
from protoflow.transport import SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.names import Names, milliseconds

Arguments: TypeAlias = dict[str, str | int]

#: A constant, far above any policy's: the runtime's own limit is the one that works.
DELIVERY_LIMIT = 1000
_UNLIMITED_FROM = (4, 0)  # before, no limit is the default and -1 is not known

_MEND = "make it by starting once with topology mode create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange; all are durable."""

    name: str
    kind: str


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
        source = Binding(source=names.exchange, target=own, key=names.routing_key(topic))
        exchanges: tuple[Exchange, ...] = ()
        bindings = [source]
        if names.shards > 1:
            exchanges = (Exchange(name=own, kind="x-consistent-hash"),)
            bindings = [
                Binding(source=source.source, target=own, key=source.key, to_exchange=True),
                *(
                    Binding(source=own, target=names.queue(topic, group, shard), key="1")
                    for shard in range(names.shards)
                ),
            ]
        queues = [
            Queue(
                name=names.queue(topic, group, shard),
                arguments={
                    "x-delivery-limit": DELIVERY_LIMIT,
                    **self._dead_lettering(names.overflow, own),
                },
            )
            for shard in range(names.shards)
        ]
        if settings.defers:
            queues += (self._rung(settings, seconds) for seconds in self._ladder)
        for letters in settings.dead_letter_topics:
            queue = self._letters(letters)
            queues.append(queue)
            bindings += (
                Binding(source=names.exchange, target=queue.name, key=names.routing_key(letters)),
                Binding(source=names.overflow, target=queue.name, key=own),
            )
        return replace(
            self._shards(topic, group),
            exchanges=exchanges,
            queues=tuple(queues),
            bindings=tuple(bindings),
        )

    def _rung(self, settings: SubscriptionSettings, seconds: float) -> Queue:
        names, topic, group = self._names, settings.topic, settings.group
        own = names.group(topic, group)
        target = ("", own) if names.shards == 1 else (own, "")
        return Queue(
            name=names.rung(topic, group, seconds),
            arguments={
                "x-message-ttl": milliseconds(seconds),
                **self._dead_lettering(*target),
            },
        )

    def _letters(self, topic: str) -> Queue:
        unlimited: Arguments = {"x-delivery-limit": -1} if self._version >= _UNLIMITED_FROM else {}
        return Queue(name=self._names.dead_letters(topic), arguments=unlimited)

    @staticmethod
    def _dead_lettering(exchange: str, key: str) -> Arguments:
        # At least once: without it a message is gone when its target does not answer.
        return {
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-routing-key": key,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def _shards(self, topic: str, group: str) -> Plan:
        """How another number of shards is noticed: keys would move, and so overtake."""
        names = self._names
        reason = (
            f"group {group} of {topic} was made with another number of shards than "
            f"{names.shards}: set option shards as it was, or delete its queues once empty"
        )
        first, beyond = names.shard(topic, group, 0), names.shard(topic, group, names.shards)
        if names.shards == 1:
            return Plan(absent=((first, reason),))
        last = names.shard(topic, group, names.shards - 1)
        return Plan(
            absent=((names.group(topic, group), reason), (beyond, reason)),
            together=((first, last, reason),),
        )


class Declarer:
    """Declares or verifies a plan, on channels of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Channel | None = None
        self._problems: list[str] = []

    async def ensure(self, plan: Plan, mode: TopologyMode) -> None:
        """Raises TopologyError naming everything that is missing or differs."""
        if mode is TopologyMode.NONE:
            return
        try:
            for name, reason in plan.absent:
                if await self._exists(name):
                    self._problems.append(reason)
            for first, last, reason in plan.together:
                if await self._exists(first) != await self._exists(last):
                    self._problems.append(reason)
            if not self._problems:
                await self._ensure(plan, mode)
        finally:
            if self._channel is not None:
                await self._channel.leave()
        if self._problems:
            raise TopologyError("\n".join(dict.fromkeys(self._problems)))

    async def _ensure(self, plan: Plan, mode: TopologyMode) -> None:
        verify = mode is TopologyMode.VERIFY
        for exchange in plan.exchanges:
            passive = ExchangeMethods.Declare(exchange=exchange.name, passive=True)
            active = ExchangeMethods.Declare(
                exchange=exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                arguments={"hash-header": "pf_key"} if exchange.kind == "x-consistent-hash" else {},
            )
            await self._declare(f"exchange {exchange.name}", passive if verify else None, active)
        for queue in plan.queues:
            passive_queue = QueueMethods.Declare(queue=queue.name, passive=True)
            await self._declare(
                f"queue {queue.name}", passive_queue if verify else None, queue.declaration
            )
        if not verify and not self._problems:
            for binding in plan.bindings:
                await self._bind(binding)

    async def _declare(
        self,
        what: str,
        passive: Frame | None,
        active: Frame,
    ) -> None:
        # A passive declaration compares no arguments, so the active one follows it.
        for method in (active,) if passive is None else (passive, active):
            if problem := await self._problem(what, method):
                self._problems.append(problem)
                return

    async def _exists(self, queue: str) -> bool:
        return await self._problem(queue, QueueMethods.Declare(queue=queue, passive=True)) is None

    async def _bind(self, binding: Binding) -> None:
        method = (
            ExchangeMethods.Bind(
                destination=binding.target, source=binding.source, routing_key=binding.key
            )
            if binding.to_exchange
            else QueueMethods.Bind(
                queue=binding.target, exchange=binding.source, routing_key=binding.key
            )
        )
        if problem := await self._problem(
            f"binding of {binding.target} to {binding.source}", method
        ):
            self._problems.append(problem)

    async def _problem(
        self,
        what: str,
        method: Frame,
    ) -> str | None:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._link.channel(confirms=False)
        try:
            await self._channel.request(method)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return f"{what} is missing; {_MEND}"
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            return f"{what} differs from what is needed: {error}; delete it once it is empty"
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise AuthenticationError(
                f"{what}: the user may not declare or bind it: {error}"
            ) from error
        except aiormq.exceptions.ConnectionCommandInvalid as error:
            raise TopologyError(
                f"{what}: option shards above 1 needs the plugin; run: "
                "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
            ) from error
        return None
