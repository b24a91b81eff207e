"""Builds the scheduler of a subscription: compiles the chains and makes the routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.contract.spec import Effects
from protoflow.pipeline import Chain, HandlerSpec, Next
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.publisher import MessagePublisher
from protoflow.publishing.submitter import Submitter
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.routing.transport import part_of
from protoflow.scheduling.invoke import decoder, terminal
from protoflow.scheduling.job import Route
from protoflow.scheduling.readiness import Readiness
from protoflow.scheduling.router import Router
from protoflow.scheduling.scheduler import Scheduler
from protoflow.scheduling.threads import Threads
from protoflow.scheduling.windows import RoutedWindowPublisher, WindowPublisher
from protoflow.stats.handlers import Counters
from protoflow.transport.interface import Capabilities, Transport

if TYPE_CHECKING:
    from protoflow.journal import Journal
    from protoflow.journal.handler_journal import HandlerJournal
    from protoflow.publishing.framed_encoder import FramedEncoder
    from protoflow.scheduling.frames import Frames
    from protoflow.scheduling.inbox_runs import InboxRuns


def assemble(
    plan: SubscriptionPlan,
    config: Config,
    chain: Chain,
    transport: Transport,
    publisher: MessagePublisher,
    threads: Threads,
    clock: Clock,
    counters: Counters,
    crashed: Callable[[BaseException], None],
    journal: Journal | None = None,
    inbox: InboxRuns | None = None,
) -> Scheduler:
    """Returns the scheduler of a subscription; it is not started yet."""
    readiness = Readiness()
    routes = publisher.outputs_of(plan.settings.transport)
    transport = part_of(transport, plan.settings.transport)
    submitter = publisher.submitter if routes is None else routes.submitters[routes.own]

    def mark_late(detail: str | None) -> None:
        readiness.mark_unready("outputs", detail)

    made: dict[str, Route] = {}
    for handler in plan.handlers:
        spec = _spec(handler, config, transport, clock, counters, readiness, journal)
        windows = _windows(publisher.submitter, transport, routes, spec, mark_late)
        registration = handler.registration
        if inbox is not None and registration.effects is Effects.EXACTLY_ONCE:
            innermost = inbox.terminal(registration, spec, threads, publisher)
        else:
            innermost = terminal(registration, spec, windows.publish, threads, publisher)
        run = _journaled(chain.compile(innermost, spec), spec)
        made[spec.name] = Route(spec, registration, run)
    kinds = {kind: made[handler.registration.name] for kind, handler in plan.routes.items()}
    router = Router(kinds, tuple(made.values()), config.type_names)
    return Scheduler(
        plan.settings, router, transport, submitter, publisher.encode, readiness,
        crashed, 0.0 if clock.virtual else config.stalled_after, routes,
        _frames(plan.settings.topic, publisher.framed, router, readiness, clock),
    )  # fmt: skip


def _frames(
    topic: str, framed: FramedEncoder | None, router: Router, readiness: Readiness, clock: Clock
) -> Frames | None:
    """Returns what opens the frames of a topic; None if it has none."""
    if framed is None or not framed.registry.of_topic(topic).enabled:
        return None
    if all(route.registration.message is None for route in router.all):
        return None  # handlers without a contract get payloads as they are
    from protoflow.scheduling.frames import Frames

    return Frames(framed.registry, router, readiness.mark_unready, clock.random)


def _windows(
    submitter: Submitter, transport: Transport, routes: OutputRoutes | None, spec: HandlerSpec,
    mark_late: Callable[[str | None], None],
) -> WindowPublisher | RoutedWindowPublisher:  # fmt: skip
    """Returns the publisher of streams, to one transport or several."""
    confirmed = spec.stats.confirmed
    if routes is None:
        claims = transport.capabilities
        return WindowPublisher(submitter, claims, confirmed, spec.clock, mark_late)
    return RoutedWindowPublisher(
        routes,
        {
            name: WindowPublisher(
                routes.submitters[name], part.capabilities, confirmed, spec.clock, mark_late
            )
            for name, part in routes.parts.items()
        },
    )


def _journaled(run: Next, spec: HandlerSpec) -> Next:
    """Returns the run; successes are recorded if the journal wants them."""
    if spec.journal is None or not spec.journal.successes:
        return run
    from protoflow.scheduling.journaled_runs import journaled

    return journaled(run, spec.journal)


def _spec(
    handler: HandlerPlan, config: Config, transport: Transport, clock: Clock, counters: Counters,
    readiness: Readiness, journal: Journal | None,
) -> HandlerSpec:  # fmt: skip
    registration = handler.registration
    decode = registration.decode
    if decode is None and registration.message is not None:
        decode = decoder(registration.message.message_class)
    return HandlerSpec(
        name=registration.name,
        topic=handler.topic,
        group=handler.group,
        policy=handler.policy,
        message=registration.message,
        publication=registration.publication,
        dead_letter_topic=handler.dead_letter_topic,
        batched=registration.batched,
        decode=decode or (lambda context: context.message),
        stats=counters.open(registration.name, handler.dead_letter_topic),
        config=config,
        capabilities=_usable(transport.capabilities, handler),
        clock=clock,
        streams=registration.streams,
        pause_for=readiness.pause_for,
        journal=None if journal is None else _journal_of(journal, handler),
        transport=handler.transport,
        source="" if handler.source is None else handler.source.name,
    )


def _journal_of(journal: Journal, handler: HandlerPlan) -> HandlerJournal:
    from protoflow.journal.handler_journal import HandlerJournal

    return HandlerJournal(journal, handler.registration.name, handler.group)


def _usable(capabilities: Capabilities, handler: HandlerPlan) -> Capabilities:
    """Returns the capabilities of the transport that this handler uses."""
    if capabilities.atomic_on_demand and not handler.policy.atomic:
        return replace(capabilities, atomic=False)
    return capabilities
