"""The versions of the handler that a replay runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from protoflow.cli import target
from protoflow.config.options import did_you_mean
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import BATCH_MESSAGES, FileSpec
from protoflow.errors import ConfigError
from protoflow.pipeline import Chain
from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan
from protoflow.service import Service
from protoflow.service.single_handler import SingleHandler, without_effects
from protoflow.topic_replay import ReplayTransport
from protoflow.topic_replay.feed import observe
from protoflow.transport import Transport

#: Selects a handler of a service by name.
Choice = Callable[[Mapping[str, HandlerPlan]], str]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A handler that is ready to run.

    Attributes:
        target: what the command line names.
        handler: the full name of the handler.
        single: runs it.
        plan: its plan.
        chain: its middlewares.
        transport: hands out the messages.
    """

    target: str
    handler: str
    single: SingleHandler
    plan: SubscriptionPlan
    chain: Chain
    transport: ReplayTransport

    @property
    def portion(self) -> int | None:
        """The size of a batch; None if the handler takes single messages."""
        registration = self.plan.handlers[0].registration
        return (registration.batch.max_messages or BATCH_MESSAGES) if registration.batched else None


def services(names: list[str]) -> list[Service]:
    """Returns the service of each target; each target must have its own."""
    found = [target.load(name) for name in names]
    if len(found) > 1 and found[0] is found[1]:
        raise ConfigError(
            f"{names[0]} and {names[1]} are the same Service; name handler classes, or functions "
            "that make a Service"
        )
    return found


def version_of(
    service: Service, name: str, choose: Choice, topic: str, broker: Transport, *,
    shadow: bool, concurrency: int | None, without: tuple[str, ...],
) -> Version:  # fmt: skip
    """Returns a handler of a service, ready to run. Raises ConfigError."""
    transport = ReplayTransport(broker, captures=shadow)
    single = service.single_handler(transport)
    plan = single.plan(choose)
    settings = replace(plan.settings, topic=topic)
    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    plan = replace(plan, settings=settings)
    chain = service.middleware.drop(*without)
    if shadow:
        chain = without_effects(chain)
    outermost = chain.names[0] if chain.names else None
    return Version(
        target=name,
        handler=plan.handlers[0].registration.name,
        single=single,
        plan=plan,
        chain=chain.add("replay", observe, before=outermost),
        transport=transport,
    )


def named(name: str | None, topic: str) -> Choice:
    """Selects the handler with a name, or the only one that consumes a topic."""

    def choose(handlers: Mapping[str, HandlerPlan]) -> str:
        if name is None:
            return _only(handlers, topic, "name one with --handler")
        found = [one for one in handlers if one == name or one.endswith(f".{name}")]
        if len(found) != 1:
            several = f" is one of {', '.join(found)}" if found else " is not a handler"
            hint = "" if found else did_you_mean(name, handlers)
            raise ConfigError(
                f"--handler {name}{several}{hint}; the service has {', '.join(handlers) or 'none'}"
            )
        return found[0]

    return choose


def like(first: Version) -> Choice:
    """Selects the handler of the same name, or the only one that consumes the same topic."""

    def choose(handlers: Mapping[str, HandlerPlan]) -> str:
        if first.handler in handlers:
            return first.handler
        topic = first.plan.handlers[0].topic
        return _only(handlers, topic, f"give one of them the name {first.handler}")

    return choose


def _only(handlers: Mapping[str, HandlerPlan], topic: str, fix: str) -> str:
    found = [name for name, handler in handlers.items() if handler.topic == topic]
    if len(found) != 1:
        which = ", ".join(found) or "no handler"
        raise ConfigError(f"{which} of the service consumes {topic}; {fix}")
    return found[0]


def imported_contract() -> Catalog:
    """Returns the contract of all generated modules that the services have imported."""
    specs = (getattr(module, "__protoflow_spec__", None) for module in [*sys.modules.values()])
    return Catalog(spec for spec in specs if isinstance(spec, FileSpec))
