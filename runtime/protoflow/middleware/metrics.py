"""Measures the runs of a handler in its statistics."""

from __future__ import annotations

from typing import cast

from protoflow.context import Context
from protoflow.message import Delivery
from protoflow.outcomes import DONE, Outcome, Postpone
from protoflow.pipeline import HandlerSpec, Next


def metrics(next: Next, spec: HandlerSpec) -> Next:
    """Measures latency and throughput. The runtime counts messages and errors even without this
    middleware."""
    ran, ran_batch = spec.stats.timings.ran, spec.stats.timings.ran_batch
    now = spec.clock.monotonic

    async def run(delivery: Delivery, context: Context) -> Outcome:
        start = now()
        try:
            outcome = await next(delivery, context)
        except BaseException:
            ran(start, now())
            raise
        if outcome is DONE or type(outcome) is not Postpone:  # the handler did not run
            ran(start, now())
        return outcome

    async def run_batch(delivery: Delivery, context: Context) -> Outcome:
        start = now()
        try:
            outcome = await next(delivery, context)
        except BaseException:
            ran_batch(start, now(), _size(context))
            raise
        if type(outcome) is not Postpone:
            ran_batch(start, now(), _size(context))
        return outcome

    return run_batch if spec.batched else run


def _size(context: Context) -> int:
    items = cast("tuple[Context, ...]", getattr(context, "items", (context,)))
    return len(items)
