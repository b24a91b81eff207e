"""The part of a service that routes read and act on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from protoflow.config.settings import Config
from protoflow.contract.catalog import Catalog
from protoflow.contract.names import NameResolver
from protoflow.contract.spec import MessageSpec, PublicationSpec
from protoflow.observability.health import Health
from protoflow.observability.report import Reporter
from protoflow.output import AnyOutput
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import Registration
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.routing.transport import claims_of
from protoflow.scheduling.scheduler import Scheduler
from protoflow.transport.interface import Topology, Transport
from protoflow.transport.kit.dead_letters import DeadLetters
from protoflow.web.live import Live
from protoflow.web.login_limit import LoginLimit
from protoflow.web.sessions import Sessions

if TYPE_CHECKING:
    from protoflow.journal import Journal
    from protoflow.observability.prometheus import Exposition
    from protoflow.web.neighbours import Neighbours


#: Publishes outputs; returns their ids.
Publish: TypeAlias = Callable[[PublicationSpec, Sequence[AnyOutput]], Awaitable[list[str]]]


@dataclass(kw_only=True)
class Host:
    """A service, as routes use it.

    Attributes:
        config: the settings.
        reporter: the counters, and the data of the broker.
        dead_letters: the dead letters of the service's handlers.
        health: returns whether the service is alive and ready.
        named: returns the subscription of a name. Raises RegistrationError.
        registrations: the handlers.
        started: whether the broker can be asked.
        publish: publishes outputs; returns their ids.
        started_at: seconds since the epoch.
        journal: records actions of operators, if there is a journal.
        contract: messages besides those of the handlers; empty in a service.
        neighbours: other processes, if the settings ask for them.
        alone: whether no handler runs here; the contract names handlers that run elsewhere.
        live: the viewers, and their last data.
        login_limit: limits how often clients may try a token.
    """

    config: Config
    reporter: Reporter
    dead_letters: DeadLetters
    health: Callable[[], Health]
    named: Callable[[str], Scheduler]
    registrations: Callable[[], Sequence[Registration]]
    started: Callable[[], bool]
    publish: Publish
    started_at: float = field(default_factory=time.time)
    journal: Journal | None = None
    contract: Catalog = field(default_factory=lambda: Catalog(()))
    neighbours: Neighbours | None = None
    alone: bool = False
    live: Live = field(default_factory=Live, init=False)
    login_limit: LoginLimit = field(default_factory=LoginLimit, init=False)
    _plans: list[SubscriptionPlan] | None = field(default=None, init=False)
    _expositions: dict[bool, Exposition] = field(default_factory=dict, init=False)
    _sessions: Sessions | None = field(default=None, init=False)

    @property
    def schedulers(self) -> Sequence[Scheduler]:
        """The running subscriptions."""
        return self.reporter.host.subscriptions

    @property
    def transport(self) -> Transport:
        """The broker."""
        return self.reporter.host.transport

    def plans(self) -> list[SubscriptionPlan]:
        """Returns the subscriptions with names filled and policies resolved."""
        if self._plans is None:
            self._plans = plan(self.registrations(), self.config, claims_of(self.transport))
        return self._plans

    def handlers(self) -> list[HandlerPlan]:
        """Returns the handlers of all subscriptions."""
        return [handler for subscription in self.plans() for handler in subscription.handlers]

    def publish_topic(self, handler: HandlerPlan) -> str | None:
        """Returns the physical topic that a handler publishes to."""
        publication = handler.registration.publication
        if publication is None:
            return None
        names = NameResolver(self.config.namespace, self.config.variables)
        return names.physical(publication.topic, handler.registration.name)

    def topology(self) -> Topology:
        """Returns the topics and groups that the handlers consume and publish to."""
        published = {self.publish_topic(handler) for handler in self.handlers()}
        return Topology(
            subscriptions=tuple(one.settings for one in self.plans()),
            topics=tuple(sorted(topic for topic in published if topic)),
        )

    def messages(self) -> dict[str, MessageSpec]:
        """Returns the messages that the handlers take and publish, by type."""
        found: dict[str, MessageSpec] = {}
        for registration in self.registrations():
            for spec in (
                registration.message,
                registration.publication.message if registration.publication else None,
            ):
                if spec is not None:
                    found.setdefault(spec.type, spec)
        return found | dict(self.contract.messages)

    @property
    def sessions(self) -> Sessions:
        """Opens sessions of browsers."""
        if self._sessions is None:
            self._sessions = Sessions(self.config)
        return self._sessions

    def exposition(self, *, application: bool = True) -> Exposition:
        """Returns the metrics of the service, with those of the application if they are shared by
        processes. Raises MissingExtraError."""
        if application not in self._expositions:
            from protoflow.observability.prometheus import Exposition

            self._expositions[application] = Exposition(self.reporter, application=application)
        return self._expositions[application]
