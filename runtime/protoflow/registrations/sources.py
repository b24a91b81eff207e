"""Checks of topics that are consumed from existing places of other programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from protoflow.config.options import did_you_mean
from protoflow.config.settings import Config
from protoflow.contract.spec import Ordering
from protoflow.registrations import transports
from protoflow.routing.routes import Routes
from protoflow.transport.capabilities import Capabilities

if TYPE_CHECKING:
    from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan

_log = logging.getLogger("protoflow.service")


def conflicts(
    plans: Sequence[SubscriptionPlan], capabilities: Mapping[str, Capabilities]
) -> Iterator[str]:
    """Yields unknown types of sources, and places that two subscriptions would share.

    A queue, which retains nothing for later groups, has one group of consumers only.
    """
    owners: dict[tuple[str, str, str], str] = {}
    for plan in plans:
        settings, source = plan.settings, plan.settings.source
        if source is None:
            continue
        where = f"topics.{settings.topic!r}.source"
        if source.type and source.type not in plan.routes and "" not in plan.routes:
            hint = did_you_mean(source.type, plan.routes)
            known = ", ".join(plan.routes)
            yield f"{where}.type: no handler takes {source.type!r}{hint or f'; they take {known}'}"
        group = source.consumer or settings.group
        is_queue = not capabilities[settings.transport].retains
        place = settings.transport, source.name, "" if is_queue else group
        owner = owners.setdefault(place, settings.name)
        if owner != settings.name:
            yield (
                f"{settings.name} and {owner} both consume {source}: each would get a part of the "
                "messages; handle them in one topic and group of the contract, or give each group "
                "a source of its own"
            )


def warn_of_unused(plans: Sequence[SubscriptionPlan], routes: Routes) -> None:
    """Warns of sources from which no group consumes, because it is on another transport."""
    used = {plan.settings.topic for plan in plans if plan.settings.source is not None}
    for settings in (plan.settings for plan in plans if plan.settings.topic not in used):
        source = routes.sources(routes.of_topic(settings.topic)).of(settings.topic)
        if source is not None:
            _log.warning(
                "a source is not consumed, because the group is on another transport than the "
                "topic",
                extra={
                    "subscription": settings.name,
                    "source": str(source),
                    "transport": settings.transport,
                },
            )


def refused(handler: HandlerPlan, capabilities: Capabilities, config: Config) -> Iterator[str]:
    """Yields what a transport cannot do with the source of a topic, one sentence each."""
    source, policy = handler.source, handler.policy
    if source is None:
        return
    name = handler.registration.name
    transport = transports.shown(handler.transport, config)
    setting = f"topics.{handler.topic!r}.source"
    if not capabilities.sources:
        yield (
            f"{name}: {transport} cannot consume {source.name}, which {setting} names; remove the "
            "setting, or choose a transport with the capability `sources`"
        )
        return
    if policy.ordering is not Ordering.NONE and not capabilities.ordered_sources:
        yield (
            f"{name}: {transport} cannot keep the order of {source.name}, which {setting} names, "
            "because other programs may consume it, too; set ORDERING_NONE, or move the messages "
            "to the topic itself"
        )
    if handler.registration.broadcast:
        yield (
            f"{name}: {transport} cannot broadcast from {source.name}, which {setting} names; "
            "leave `broadcast` unset"
        )
