"""Policies: merging value by value, built-in values, and the wait between runs.

The later source is stronger: built-in < config default < contract (file < service < method) <
config of one handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from protoflow.contract.spec import (
    DeadLetterPolicy,
    DeliveryPolicy,
    OnExhausted,
    Ordering,
    RetryPolicy,
    Start,
    UnhandledTypes,
)
from protoflow.dataclass_record import dataclass_record
from protoflow.v1.policy_fields import DELIVERY_FIELDS

_Policy = TypeVar("_Policy", DeliveryPolicy, RetryPolicy, DeadLetterPolicy)

#: The values that hold if no source sets them.
BUILT_IN = DeliveryPolicy(
    ordering=Ordering.NONE,
    concurrency=16,
    retry=RetryPolicy(
        max_attempts=5,
        initial_backoff=1.0,
        max_backoff=300.0,
        backoff_multiplier=2.0,
        jitter=0.5,
    ),
    dead_letter=DeadLetterPolicy(
        topic="{topic}..{group}..dead", on_exhausted=OnExhausted.DEAD_LETTER
    ),
    unhandled=UnhandledTypes.SKIP,
    start=Start.EARLIEST,
    atomic=False,
)


def merge(base: _Policy, override: _Policy) -> _Policy:
    """Returns the base with every value that the override sets."""
    changes: dict[str, Any] = {}
    for leaf in fields(override):
        value: Any = getattr(override, leaf.name)
        if leaf.name in ("retry", "dead_letter"):
            changes[leaf.name] = merge(getattr(base, leaf.name), value)
        elif value is not None:
            changes[leaf.name] = value
    return replace(base, **changes)


@dataclass_record
class ResolvedRetry:
    """A retry policy with all values; waits in seconds, `max_elapsed` None means no limit."""

    max_attempts: int
    initial_backoff: float
    backoff_multiplier: float
    max_backoff: float
    jitter: float
    max_elapsed: float | None

    def wait(self, failures: int, random: float) -> float:
        """Returns the wait after a number of failed runs; `random` is from 0 up to 1."""
        try:
            grown = self.initial_backoff * self.backoff_multiplier ** (failures - 1)
        except OverflowError:
            grown = self.max_backoff
        return min(self.max_backoff, grown) * (1.0 - self.jitter * random)


@dataclass_record
class ResolvedDelivery:
    """A delivery policy with all values, and the names of those that are demands."""

    ordering: Ordering
    concurrency: int
    retry: ResolvedRetry
    dead_letter_topic: str
    on_exhausted: OnExhausted
    unhandled: UnhandledTypes
    start: Start
    timeout: float | None
    atomic: bool
    demands: frozenset[str]


def resolve(demanded: DeliveryPolicy) -> ResolvedDelivery:
    """Returns the policy; built-in values replace missing ones."""
    full = merge(BUILT_IN, demanded)
    demands = frozenset(leaves(demanded))
    retry: Any = {leaf.name: getattr(full.retry, leaf.name) for leaf in fields(full.retry)}
    # If the first and the longest wait contradict each other, the built-in value is adjusted.
    if retry["initial_backoff"] > retry["max_backoff"]:
        yields = "max_backoff" if "retry.initial_backoff" in demands else "initial_backoff"
        retry[yields] = retry["initial_backoff" if yields == "max_backoff" else "max_backoff"]
    values: Any = {path: getattr(full, path) for path in DELIVERY_FIELDS if "." not in path}
    return ResolvedDelivery(
        **values,
        retry=ResolvedRetry(**retry),
        dead_letter_topic=full.dead_letter.topic or "",
        on_exhausted=full.dead_letter.on_exhausted or OnExhausted.DEAD_LETTER,
        demands=demands,
    )


def leaves(policy: Any, prefix: str = "") -> Mapping[str, Any]:
    """Returns the values that are set, with names such as `retry.max_attempts`."""
    found: dict[str, Any] = {}
    for leaf in fields(policy):
        value = getattr(policy, leaf.name)
        if isinstance(value, RetryPolicy | DeadLetterPolicy):
            found.update(leaves(value, f"{prefix}{leaf.name}."))
        elif value is not None:
            found[prefix + leaf.name] = value
    return found


def problems(policy: DeliveryPolicy) -> list[str]:
    """Returns the errors in the values of a policy from the config."""
    found = [
        f"{path} is {value}; {limit.fix}"
        for path, value in leaves(policy).items()
        if (limit := DELIVERY_FIELDS[path].limit) and not limit.allows(value)
    ]
    retry = policy.retry
    first, longest = retry.initial_backoff, retry.max_backoff
    if first is not None and longest is not None and longest < first:
        found.append("retry.max_backoff is less than retry.initial_backoff")
    return found
