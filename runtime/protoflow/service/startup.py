"""The components of a service, and their assembly at start.

This module is loaded when the first service is created, not with the class `Service`. Modules that
define handlers or only publish use the class as a type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from protoflow import ids
from protoflow.clock import Clock
from protoflow.config.named_transports import DEFAULT
from protoflow.connection import transport_for, warn_of_memory
from protoflow.contract.spec import Effects
from protoflow.contract.topics import TopologyMode
from protoflow.error_codes import DATABASE, MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.middleware import default_chain
from protoflow.pipeline import Chain, Middleware, chain_of
from protoflow.publishing.event_publisher import EventPublisher, publication_of
from protoflow.publishing.publisher import MessagePublisher
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import published_topic
from protoflow.registrations.registry import Registry
from protoflow.registrations.subscription_plan import SubscriptionPlan
from protoflow.routing.routes import warn_of_unused
from protoflow.routing.transport import claims_of, warn_of_unused_options
from protoflow.scheduling.assembly import assemble
from protoflow.scheduling.threads import Threads
from protoflow.service.inspection import Inspection
from protoflow.service.journaling import Journaling
from protoflow.service.running import Running
from protoflow.stats.handlers import Counters, classify_error
from protoflow.transport.interface import Topology, Transport

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from protoflow.config.settings import Config
    from protoflow.middleware import Dependencies
    from protoflow.outbox.binding import Destination
    from protoflow.scheduling.inbox_runs import InboxRuns
    from protoflow.scheduling.scheduler import Scheduler

_log = logging.getLogger("protoflow.service")


class Components:
    """The components of a service.

    Attributes:
        config: the settings.
        clock: time and randomness.
        transport: the broker, or several as one; not yet open.
        counters: statistics.
        publisher: publishes immediately.
        events: publishes without generated producers, through `publisher`.
        registry: the registered handlers and types.
        threads: for handlers that are plain functions.
        running: the running subscriptions.
        tracer_provider: makes spans; None: the configured one.
        inbox: opens the transactions of handlers with exactly-once effects, if there is one.
        inspection: health, reports, dead letters, HTTP pages.
        journaling: records the outcomes of messages, if the settings name a journal.
    """

    def __init__(
        self,
        config: Config,
        middleware: Chain | Sequence[Middleware] | None,
        clock: Clock | None,
        transport: Transport | Mapping[str, Transport] | None,
        dependencies: Dependencies,
    ) -> None:
        self.config = config
        self.clock = clock or Clock()
        chain = _chain(middleware, dependencies)
        self.counters = Counters(dependencies.get("error_classifier") or classify_error)
        self.journaling = Journaling(config, self.clock, self.counters)
        if transport is None:
            warn_of_memory(config)
            transport = {}
        given = transport if isinstance(transport, Mapping) else {DEFAULT: transport}
        self.transport = transport_for(config, self.clock, given)
        self.publisher = MessagePublisher(config, self.transport, self.clock, self.counters.sent)
        self.publisher.encode.validator = dependencies.get("validator")
        self.events = EventPublisher(self.publisher)
        self.registry = Registry(chain, self.publisher.encode.physical)
        self.threads = Threads(config.sync_threads)
        self.running = Running()
        self.inspection = Inspection(
            config, self.clock, self.transport, self.counters, self.publisher, self.running,
            self.registry, dependencies.get("outbox"), self.journaling.journal,
            dependencies.get("inbox"),
        )  # fmt: skip
        self.tracer_provider = dependencies.get("tracer_provider")
        self.inbox = dependencies.get("inbox")
        self._destination: Destination | None = None
        self._outputs_once = False

    @property
    def destination(self) -> Destination:
        """The destination of messages in transactions."""
        from protoflow.outbox.binding import Destination

        if self._destination is None:
            self._destination = Destination(self.transport, self.inspection.wake_relay)
        return self._destination

    @destination.setter
    def destination(self, destination: Destination) -> None:
        self._destination = destination

    def bind(self, connection: object) -> EventPublisher:
        """Returns a publisher for the transaction that is open on a database connection."""
        from protoflow.outbox.binding import bind

        return bind(self.publisher, self.destination, connection)

    async def open_inbox(self, resources: AsyncExitStack) -> None:
        """Creates or verifies the inbox table; closing the resources closes it. Raises
        ConfigError."""
        if self.inbox is not None:
            resources.push_async_callback(self.inbox.close)
            outbox = self._outputs_once and self.destination.log_of(self.inbox.dialect) is None
            await self.inbox.open(create=self.config.topology is TopologyMode.CREATE, outbox=outbox)
            if outbox and not self.inspection.relays:
                _log.warning(
                    "outputs of handlers stay in the outbox, which this service does not relay; "
                    "run `protoflow relay`, or set outbox"
                )

    def close_publishers(self) -> None:
        """Stops publishing."""
        self.publisher.close()
        if self._destination is not None:
            self._destination.close()

    async def assemble(self, crashed: Callable[[BaseException], None]) -> list[Scheduler]:
        """Returns the schedulers of all subscriptions, not yet started; creates their topology.

        Raises:
            ConfigError, RegistrationError, CapabilityError: they list all mistakes.
            TransportError: the topology cannot be created, or differs.
        """
        ids.load()
        self.publisher.open(self.tracer_provider)
        registry = self.registry
        plans = plan(registry.registrations, self.config, claims_of(self.transport))
        effects = self.effects(plans)
        schedulers = [
            assemble(
                subscription, self.config, registry.chain, self.transport, self.publisher,
                self.threads, self.clock, self.counters, crashed, self.journaling.journal,
                effects,
            )
            for subscription in plans
        ]  # fmt: skip
        topic_of = self.publisher.encode.topic_of
        events = {topic_of(publication_of(message_class)) for message_class in registry.messages}
        published = {
            topic_of(item.publication) for item in registry.registrations if item.publication
        }
        topology = Topology(
            subscriptions=tuple(subscription.settings for subscription in plans),
            topics=tuple(sorted(published)),
        )
        await self.transport.ensure(topology, self.config.topology)
        self.publisher.known(topology.topics)
        if self.publisher.framed is not None:
            declared = (one.publication for one in registry.registrations)
            await self.publisher.framed.prepare(filter(None, declared))
        self._warn_of_unused(topology, events)
        return schedulers

    def _warn_of_unused(self, topology: Topology, events: Collection[str]) -> None:
        """Warns of topics of the settings and options that no handler uses."""
        given = (published_topic(item) for item in self.registry.registrations)
        outputs = {self.publisher.encode.physical(topic) for topic in given if topic}
        used = {*outputs, *(one.topic for one in topology.subscriptions)}
        warn_of_unused(self.config, used)
        dead = {name for one in topology.subscriptions for name in one.dead_letter_topics}
        warn_of_unused_options(self.transport, {*used, *events, *dead})

    def effects(
        self, plans: Sequence[SubscriptionPlan], *, rehearsal: bool = False
    ) -> InboxRuns | None:
        """Returns the maker of exactly-once runs; a rehearsal is rolled back. Raises
        ConfigError."""
        handlers = [handler for plan in plans for handler in plan.handlers]
        once = [one for one in handlers if one.registration.effects is Effects.EXACTLY_ONCE]
        if not once:
            return None
        from protoflow.inbox.demands import problems
        from protoflow.scheduling.inbox_runs import InboxRuns

        self._outputs_once = not rehearsal and any(one.registration.publication for one in once)
        if wrong := list(problems(once, self.inbox, self.config)):
            raise ConfigError(wrong, code=DATABASE)
        if self.inbox is None:
            return None
        return InboxRuns(self.inbox, self.destination, rehearsal=rehearsal)


def _chain(middleware: Chain | Sequence[Middleware] | None, dependencies: Dependencies) -> Chain:
    if isinstance(middleware, Chain) and dependencies.keys() & {"hooks", "outbox"}:
        raise ConfigError(
            "`middleware` is a complete chain; pass hooks and outbox to default_chain, too",
            code=MIDDLEWARE,
        )
    return chain_of(middleware, default_chain(dependencies))
