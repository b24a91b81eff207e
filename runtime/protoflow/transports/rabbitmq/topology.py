"""Exchanges, queues and bindings: the content of a plan, its declaration and verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import aiormq.exceptions
from pamqp.base import Frame
from pamqp.commands import Exchange as ExchangeMethods
from pamqp.commands import Queue as QueueMethods

from protoflow.errors import AuthenticationError, TopologyError
from protoflow.transport.interface import TopologyMode
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.names import Names

Arguments: TypeAlias = dict[str, str | int | bool]
_FIX = "create it by starting once with topology mode create"
_THEIRS = "the program that owns it declares it, protoflow does not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange; all are durable.

    Attributes:
        internal: only the broker publishes there, when it dead-letters.
    """

    name: str
    kind: str
    internal: bool = False
    arguments: Arguments = field(default_factory=dict)

    @property
    def passive(self) -> Frame:
        """The request that checks its existence."""
        return ExchangeMethods.Declare(exchange=self.name, passive=True)

    @property
    def declaration(self) -> Frame:
        """The request that declares it."""
        return ExchangeMethods.Declare(
            exchange=self.name,
            exchange_type=self.kind,
            durable=True,
            internal=self.internal,
            arguments={**self.arguments},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A quorum queue."""

    name: str
    arguments: Arguments = field(default_factory=dict)

    @property
    def passive(self) -> Frame:
        """The request that checks its existence."""
        return QueueMethods.Declare(queue=self.name, passive=True)

    @property
    def declaration(self) -> Frame:
        """The request that declares it."""
        return QueueMethods.Declare(
            queue=self.name, durable=True, arguments={"x-queue-type": "quorum", **self.arguments}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A route from an exchange to a queue, or to another exchange."""

    source: str
    target: str
    key: str
    to_exchange: bool = False

    @property
    def declaration(self) -> Frame:
        """The request that declares it."""
        source, target, key = self.source, self.target, self.key
        if self.to_exchange:
            return ExchangeMethods.Bind(destination=target, source=source, routing_key=key)
        return QueueMethods.Bind(queue=target, exchange=source, routing_key=key)


@dataclass(slots=True)
class Plan:
    """The needed exchanges, queues and bindings, without duplicates.

    Attributes:
        exchanges: exchanges by name.
        queues: queues by name.
        bindings: bindings.
        foreign: queues of other programs, each with the setting that names it. They must exist.
        absent: queues that must not exist, each with the problem that it shows.
        together: pairs of queues of which either both or none must exist, each with the problem.
    """

    exchanges: dict[str, Exchange] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    bindings: dict[Binding, None] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    together: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, *items: Exchange | Queue | Binding) -> None:
        """Adds to the plan."""
        for item in items:
            if isinstance(item, Exchange):
                self.exchanges[item.name] = item
            elif isinstance(item, Queue):
                self.queues[item.name] = item
            else:
                self.bindings[item] = None


def due(names: Names) -> Exchange:
    """The exchange for delayed messages that are due."""
    return Exchange(
        name=names.delay(-1), kind="topic", arguments={"alternate-exchange": names.nobody}
    )


def dead_lettering(exchange: str, key: str | None) -> Arguments:
    """Returns the arguments of a queue that forwards messages; without a key they keep theirs."""
    # At least once: otherwise a message is lost if its target does not answer.
    return {
        "x-dead-letter-exchange": exchange,
        **({} if key is None else {"x-dead-letter-routing-key": key}),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


class TopologyManager:
    """Declares or verifies a plan, on separate channels."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Channel | None = None
        self._problems: list[str] = []

    async def ensure(self, plan: Plan, mode: TopologyMode) -> None:
        """Raises TopologyError, which names everything that is missing or differs."""
        if mode is TopologyMode.NONE:
            return
        try:
            for name, reason in plan.absent.items():
                if await self._exists(name):
                    self._problems.append(reason)
            for first, last, reason in plan.together:
                if await self._exists(first) != await self._exists(last):
                    self._problems.append(reason)
            for name, reason in plan.foreign.items():
                try:
                    if not await self._exists(name):
                        self._problems.append(f"queue {name} is missing, {reason}; {_THEIRS}")
                except ValueError:  # of the client library
                    self._problems.append(f"queue {name}, {reason}: AMQP names no queue like this")
            if not self._problems:
                await self._ensure(plan, mode)
        finally:
            if self._channel is not None:
                await self._channel.leave()
        if self._problems:
            raise TopologyError("\n".join(dict.fromkeys(self._problems)))

    async def _ensure(self, plan: Plan, mode: TopologyMode) -> None:
        verify = mode is TopologyMode.VERIFY
        for kind, items in (("exchange", plan.exchanges), ("queue", plan.queues)):
            for item in items.values():
                # A passive declaration compares no arguments, so the active one follows it.
                methods = (item.passive, item.declaration) if verify else (item.declaration,)
                await self._declare(f"{kind} {item.name}", *methods)
        if not verify and not self._problems:
            for binding in plan.bindings:
                await self._declare(
                    f"binding of {binding.target} to {binding.source}", binding.declaration
                )

    async def _declare(self, what: str, *methods: Frame) -> None:
        for method in methods:
            if problem := await self._problem(what, method):
                self._problems.append(problem)
                return

    async def _exists(self, queue: str) -> bool:
        return await self._problem(queue, Queue(name=queue).passive) is None

    async def _problem(self, what: str, method: Frame) -> str | None:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._link.channel(confirms=False)
        try:
            await self._channel.request(method)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return f"{what} is missing; {_FIX}"
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            return f"{what} differs from what is needed: {error}; delete it once it is empty"
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise AuthenticationError(
                f"{what}: the user may not create or bind it: {error}; grant the rights "
                "configure, write and read on it with rabbitmqctl set_permissions, or let "
                "another user create it and start with topology mode none"
            ) from error
        except aiormq.exceptions.ConnectionCommandInvalid as error:
            raise TopologyError(
                f"{what}: option shards above 1 needs the plugin; run: "
                "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
            ) from error
        return None
