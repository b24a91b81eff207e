"""The settings on which the handlers of one subscription must agree, in all files."""

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
    """Returns the handlers with the values of their subscription; reports contradictions.

    If some handlers set a value and the others do not, it holds for all. Config of one handler has
    priority over contracts, and contracts over the defaults of the config. Two different values
    from the same kind of source contradict each other.
    """
    together = (
        f"these consume {handlers[0].topic} in the group {handlers[0].group} together: set the "
        "same value"
    )
    leaves: dict[str, Any] = {}
    for leaf in SHARED_FIELDS:
        values = _values(handlers, leaf, config)
        if len(values) > 1:
            said = " and ".join(f"{value} in {name}" for value, name in values.items())
            conflicts.append(f"{leaf} is {said}, but {together}, or in one of them")
        if values:
            leaves[leaf] = next(iter(values))
    if len({handler.transport for handler in handlers}) > 1:
        said = " and ".join(
            f"{handler.registration.name} from {handler.transport}" for handler in handlers
        )
        conflicts.append(
            f"{said} consume on different transports, but {together}, or give one a consumer_group "
            "of its own"
        )
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
    """Returns the values of the strongest source, each with the first handler that sets it."""
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
