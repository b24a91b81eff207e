"""What the handlers of one subscription must agree upon, whatever files they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from protoflow.contract.spec import DeliveryPolicy
from protoflow.v1.policy_fields import SHARED_FIELDS

if TYPE_CHECKING:
    from protoflow.config.settings import Config
    from protoflow.registrations.subscription_plan import HandlerPlan

_NOTHING = DeliveryPolicy()


def shared(
    handlers: Sequence[HandlerPlan], config: Config, conflicts: list[str]
) -> list[HandlerPlan]:
    """The handlers, each with the leaves that hold for all; notes contradictions.

    A leaf holds for all where only some set it. Config of one handler goes before contracts, and
    those before the defaults of the config; two of one kind that differ contradict each other.
    """
    together = (
        f"these consume {handlers[0].topic} in the group {handlers[0].group} together: set it alike"
    )
    leaves: dict[str, Any] = {}
    for leaf in SHARED_FIELDS:
        values = _values(handlers, leaf, config)
        if len(values) > 1:
            said = " and ".join(f"{value} in {name}" for value, name in values.items())
            conflicts.append(f"{leaf} is {said}, but {together}, or in one of them")
        if values:
            leaves[leaf] = next(iter(values))
    if len({handler.registration.broadcast for handler in handlers}) > 1:
        names = " and ".join(handler.registration.name for handler in handlers)
        conflicts.append(
            f"broadcast differs between {names}, but {together}, or give one a consumer_group of "
            "its own"
        )
    return [
        replace(
            handler,
            policy=replace(
                handler.policy, **leaves, demands=handler.policy.demands | leaves.keys()
            ),
        )
        for handler in handlers
    ]


def _values(handlers: Sequence[HandlerPlan], leaf: str, config: Config) -> dict[Any, str]:
    """The values that are said where it counts most, each with the first handler that says it."""
    levels: tuple[dict[Any, str], dict[Any, str], dict[Any, str]] = ({}, {}, {})
    for handler in handlers:
        name = handler.registration.name
        if leaf in handler.policy.demands:
            if getattr(config.handlers.get(name, _NOTHING), leaf) is not None:
                level = 0
            else:
                level = 1 if getattr(handler.registration.delivery, leaf) is not None else 2
            levels[level].setdefault(getattr(handler.policy, leaf), name)
    return next((values for values in levels if values), {})
