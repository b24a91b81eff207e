"""Checks of topics that are consumed from existing places of other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from protoflow.config.options import did_you_mean
from protoflow.config.settings import Config
from protoflow.contract.spec import Ordering
from protoflow.registrations import transports
from protoflow.transport.capabilities import Capabilities

if TYPE_CHECKING:
    from protoflow.registrations.subscription_plan import HandlerPlan, SubscriptionPlan


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
