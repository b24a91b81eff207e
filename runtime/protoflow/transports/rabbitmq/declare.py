"""Declaring or verifying a plan at the server."""

from __future__ import annotations

import aiormq.exceptions
from pamqp.base import Frame
from pamqp.commands import Exchange as ExchangeMethods
from pamqp.commands import Queue as QueueMethods

from protoflow.errors import AuthenticationError, TopologyError
from protoflow.transport.interface import TopologyMode
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.topology import Binding, Plan

_MEND = "make it by starting once with topology mode create"


class TopologyManager:
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
                internal=exchange.internal,
                arguments={**exchange.arguments},
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
                f"{what}: the user may not make or bind it: {error}; grant the rights configure, "
                "write and read on it with rabbitmqctl set_permissions, or let another user make "
                "it and start with topology mode none"
            ) from error
        except aiormq.exceptions.ConnectionCommandInvalid as error:
            raise TopologyError(
                f"{what}: option shards above 1 needs the plugin; run: "
                "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
            ) from error
        return None
