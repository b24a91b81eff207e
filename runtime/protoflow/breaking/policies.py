"""Differences between the policies of a handler, on any level of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from protoflow.breaking.change import Change, change
from protoflow.breaking.contract import Contract
from protoflow.contract.policy import ResolvedDelivery, ResolvedRetry
from protoflow.contract.spec import OnExhausted, Ordering, UnhandledTypes
from protoflow.registrations.subscription_plan import HandlerPlan

_STRENGTH = {Ordering.NONE: 0, Ordering.PER_KEY: 1, Ordering.PER_PARTITION: 2}
_BACKOFF = ("initial_backoff", "max_backoff", "backoff_multiplier", "jitter")


class PolicyComparison:
    """Compares the policies of one handler in two versions.

    Args:
        old: the old contract.
        new: the new contract.
        before: the handler in the old contract.
        after: the same handler in the new contract.
        retention: seconds for which the broker keeps a message.
    """

    def __init__(
        self,
        old: Contract,
        new: Contract,
        before: HandlerPlan,
        after: HandlerPlan,
        retention: float,
    ) -> None:
        self._old, self._new = old, new
        self._names = before.registration.name, after.registration.name
        self._before, self._after = before.policy, after.policy
        self._retention = retention

    def changes(self) -> Iterator[Change]:
        """Yields the differences."""
        yield from self._order()
        yield from self._retries()
        yield from self._exhausted()
        before, after = self._before, self._after
        if before.timeout != after.timeout:
            shorter = after.timeout is not None and (before.timeout or _EVER) > after.timeout
            dropped = shorter and after.on_exhausted is OnExhausted.DROP
            kind = "timeout.shorter.dropped" if dropped else "timeout.changed"
            yield self._change(kind, "timeout", before.timeout, after.timeout)
        if before.unhandled != after.unhandled:
            skipped = after.unhandled is UnhandledTypes.SKIP
            kind = "unhandled.skipped" if skipped else "unhandled.dead_lettered"
            yield self._change(kind, "unhandled", before.unhandled, after.unhandled)
        if before.start != after.start:
            yield self._change("start.changed", "start", before.start, after.start)
        if before.atomic != after.atomic:
            kind = "atomic.on" if after.atomic else "atomic.off"
            yield self._change(kind, "atomic", before.atomic, after.atomic)

    def _change(self, kind: str, leaf: str, old: Any, new: Any) -> Change:
        """Returns a change of a value, with its new or old location."""
        before, after = self._names
        place = self._new.place(after, leaf)
        if place == self._new.place(after):
            place = self._old.place(before, leaf) or place
            if place == self._old.place(before):
                place = self._new.place(after)
        return change(kind, after, old, new, place)

    def _order(self) -> Iterator[Change]:
        before, after = self._before, self._after
        if before.ordering != after.ordering:
            weaker = _STRENGTH[after.ordering] < _STRENGTH[before.ordering]
            kind = "ordering.weaker" if weaker else "ordering.stronger"
            yield self._change(kind, "ordering", before.ordering, after.ordering)
        if before.concurrency != after.concurrency:
            yield self._change(
                "concurrency.changed", "concurrency", before.concurrency, after.concurrency
            )

    def _retries(self) -> Iterator[Change]:
        before, after = self._before.retry, self._after.retry
        limits = _limits(before), _limits(after)
        if limits[0] != limits[1]:
            leaf = "max_attempts" if before.max_attempts != after.max_attempts else "max_elapsed"
            fewer = any(new < old for old, new in zip(*limits, strict=True))
            dropped = self._after.on_exhausted is OnExhausted.DROP
            kind = ("retry.fewer.dropped" if dropped else "retry.fewer") if fewer else "retry.more"
            yield self._change(kind, f"retry.{leaf}", getattr(before, leaf), getattr(after, leaf))
        waits = tuple([getattr(retry, name) for name in _BACKOFF] for retry in (before, after))
        if waits[0] != waits[1]:
            leaf = next(name for name, old, new in zip(_BACKOFF, *waits, strict=True) if old != new)
            old, new = getattr(before, leaf), getattr(after, leaf)
            if leaf in ("backoff_multiplier", "jitter"):
                old, new = f"{old:g}", f"{new:g}"
            yield self._change("backoff.changed", f"retry.{leaf}", old, new)
        spans = longest_wait(self._before), longest_wait(self._after)
        if spans[0] <= self._retention < spans[1]:
            yield self._change("retry.beyond_retention", "retry.max_attempts", *spans)

    def _exhausted(self) -> Iterator[Change]:
        before, after = self._before.on_exhausted, self._after.on_exhausted
        if before is after:
            return
        if after is OnExhausted.DROP:
            kind = "exhausted.dropped"
        elif after is OnExhausted.BLOCK:
            kind = "exhausted.blocked"
        elif before is OnExhausted.DROP:
            kind = "exhausted.kept"
        elif Ordering.NONE in (self._before.ordering, self._after.ordering):
            kind = "exhausted.unblocked.unordered"
        else:
            kind = "exhausted.unblocked"
        yield self._change(kind, "dead_letter.on_exhausted", before, after)


_EVER = float("inf")
#: After this many waits, the other waits are considered equal.
_GROWING = 1000


def _limits(retry: ResolvedRetry) -> tuple[float, float]:
    return retry.max_attempts, retry.max_elapsed if retry.max_elapsed is not None else _EVER


def longest_wait(policy: ResolvedDelivery) -> float:
    """Returns the longest time for which an ordered message is retried, in seconds."""
    if policy.ordering is Ordering.NONE:
        return 0.0
    if policy.on_exhausted is OnExhausted.BLOCK:
        return _EVER
    retry = policy.retry
    waits = retry.max_attempts - 1
    growing = min(waits, _GROWING)
    total = sum(retry.wait(failures, 0.0) for failures in range(1, growing + 1))
    total += (waits - growing) * retry.wait(growing + 1, 0.0)
    return min(total, retry.max_elapsed if retry.max_elapsed is not None else _EVER)
