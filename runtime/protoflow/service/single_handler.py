"""Runs one handler of a service on other deliveries than those of its group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from protoflow import ids
from protoflow.config.named_transports import DEFAULT
from protoflow.contract.spec import OnExhausted, UnhandledTypes
from protoflow.errors import CapabilityError
from protoflow.outbox.binding import Destination
from protoflow.registrations.plan import plan
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.scheduling.assembly import assemble
from protoflow.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from protoflow.database.interface import Dialect, Insertion
    from protoflow.message import Message
    from protoflow.pipeline import Chain
    from protoflow.service.startup import Components
    from protoflow.transport.interface import Capabilities, Transport

#: Middlewares that have effects outside of the process; a service may give them other names.
_EFFECTS = ("outbox", "job_hooks", "deduplicate")
_MODULES = tuple(f"protoflow.middleware.{name}" for name in _EFFECTS)


class SingleHandler:
    """A handler of a service that is not started.

    Each message is run once: there are no retries and no dead letters. Nothing joins the group.

    Args:
        components: the components of the service.
        lifespan: makes the context that is entered before the first message.
        transport: hands out the deliveries, and publishes.
    """

    def __init__(
        self,
        components: Components,
        lifespan: Callable[[], AbstractAsyncContextManager[object]] | None,
        transport: Transport,
    ) -> None:
        self._components = components
        self._lifespan = lifespan
        self._transport = transport

    def plan(self, choose: Callable[[Mapping[str, HandlerPlan]], str]) -> SubscriptionPlan:
        """Returns the plan of the handler that `choose` selects from those of the service."""
        config = self._components.config
        claims = dict.fromkeys((DEFAULT, *config.transports), _all(self._transport.capabilities))
        plans = plan(self._components.registry.registrations, config, claims)
        handlers = {each.registration.name: each for one in plans for each in one.handlers}
        chosen = handlers[choose(handlers)]
        once = replace(
            chosen.policy,
            retry=replace(chosen.policy.retry, max_attempts=1),
            on_exhausted=OnExhausted.DEAD_LETTER,
            unhandled=UnhandledTypes.SKIP,
            atomic=False,
        )
        handler = replace(chosen, policy=once)
        subscription = next(one for one in plans if chosen in one.handlers)
        return SubscriptionPlan(
            settings=replace(subscription.settings, atomic=False, needs_broker_retry=False),
            handlers=(handler,),
            routes={kind: handler for kind, each in subscription.routes.items() if each is chosen},
        )

    @asynccontextmanager
    async def running(
        self,
        subscription: SubscriptionPlan,
        chain: Chain,
        crashed: Callable[[BaseException], None],
        *,
        broker: Transport,
        rehearsal: bool,
    ) -> AsyncIterator[Scheduler]:
        """Runs the handler while the block runs.

        Args:
            subscription: the plan of the handler.
            chain: the middlewares.
            crashed: called with an error that must end the process.
            broker: the open transport of the service.
            rehearsal: whether transactions of an inbox are rolled back, and messages in other
                transactions are refused.
        """
        components = self._components
        components.registry.closed = True
        chain.check()
        ids.load()
        components.transport = broker
        publisher = components.publisher
        publisher.use(self._transport, frames=not rehearsal)
        async with AsyncExitStack() as resources:
            resources.callback(components.threads.close)
            resources.callback(components.close_publishers)
            publisher.open(components.tracer_provider)
            if publisher.framed is not None and not rehearsal:
                declared = (one.registration.publication for one in subscription.handlers)
                await publisher.framed.prepare(filter(None, declared))
            if rehearsal:
                components.destination = _Refusing(self._transport)
            effects = components.effects([subscription], rehearsal=rehearsal)
            scheduler = assemble(
                subscription, components.config, chain, self._transport, publisher,
                components.threads, components.clock, components.counters, crashed, None, effects,
            )  # fmt: skip
            if self._lifespan is not None:
                await resources.enter_async_context(self._lifespan())
            await components.open_inbox(resources)
            await scheduler.join()
            scheduler.begin()
            try:
                yield scheduler
            finally:
                await scheduler.stop(components.config.shutdown_timeout)


class _Refusing(Destination):
    """Refuses messages in a transaction of the handler, which could not be captured."""

    async def insertion(self, dialect: Dialect, messages: Sequence[Message]) -> Insertion:
        """Raises CapabilityError."""
        raise CapabilityError(
            "a shadow run cannot capture messages that a handler publishes in its own transaction "
            "(`bind`); replay it without --shadow, on a copy of its database"
        )


def without_effects(chain: Chain) -> Chain:
    """Returns the chain without the middlewares that have effects outside of the process."""
    return chain.drop(
        *(
            link.name
            for link in chain
            if link.name in _EFFECTS or getattr(link.middleware, "__module__", "") in _MODULES
        )
    )


def _all(capabilities: Capabilities) -> Capabilities:
    """Returns the capabilities that the plan is checked against: nothing is demanded of a broker,
    because it only keeps old messages."""
    return replace(capabilities, atomic=True, atomic_on_demand=False)
