"""From a subscription's plan to its scheduler: chains compiled, routes made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.contract.spec import PublicationSpec
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.pipeline import Chain, HandlerSpec
from protoflow.publishing.publisher import MessagePublisher, check_delay
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.scheduling.batching import Gatherer
from protoflow.scheduling.invoke import decoder, terminal
from protoflow.scheduling.job import Route
from protoflow.scheduling.router import Router
from protoflow.scheduling.scheduler import Scheduler
from protoflow.scheduling.threads import Threads
from protoflow.scheduling.windows import publisher
from protoflow.stats.handlers import Counters
from protoflow.transport.interface import Capabilities, Transport


def assemble(
    plan: SubscriptionPlan,
    config: Config,
    chain: Chain,
    transport: Transport,
    publishing: MessagePublisher,
    threads: Threads,
    clock: Clock,
    counters: Counters,
    crashed: Callable[[BaseException], None],
) -> Scheduler:
    """The scheduler of a subscription, not yet started."""

    def encode(publication: PublicationSpec, output: AnyOutput, context: Context) -> Message:
        message = publishing.encode(publication, output, context)
        if message.delay:
            check_delay(message, transport)
        return message

    def hold(reason: str, held: bool) -> None:
        scheduler.hold(reason, held)

    def late(detail: str | None) -> None:
        scheduler.degrade("outputs", detail)

    made: dict[str, Route] = {}
    for handler in plan.handlers:
        spec = _spec(handler, config, transport, clock, counters, hold)
        windows = publisher(transport.submit, spec.stats.confirmed, clock, late)
        innermost = terminal(handler.registration, spec, windows, threads, publishing)
        made[spec.name] = Route(spec, handler.registration, chain.compile(innermost, spec))
    router = Router(
        {kind: made[handler.registration.name] for kind, handler in plan.routes.items()},
        tuple(made.values()),
        config.type_names,
    )
    scheduler = Scheduler(
        plan.settings, router, transport, encode, crashed,
        0.0 if clock.virtual else config.stalled_after,
    )  # fmt: skip
    for route in router.all:
        if route.registration.batched:
            route.gatherer = Gatherer(route.registration.batch, scheduler.put_batch)
    return scheduler


def _spec(
    handler: HandlerPlan, config: Config, transport: Transport, clock: Clock, counters: Counters,
    hold: Callable[[str, bool], None],
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
        hold=hold,
    )


def _usable(capabilities: Capabilities, handler: HandlerPlan) -> Capabilities:
    """What of the transport's capabilities this handler uses."""
    if capabilities.atomic_on_demand and not handler.policy.atomic:
        return replace(capabilities, atomic=False)
    return capabilities
