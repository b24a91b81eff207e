"""Ends runs that take longer than the policy allows."""

from __future__ import annotations

import asyncio

from protoflow.context import Context
from protoflow.error_codes import TIMED_OUT, coded
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next


def timeout(next: Next, spec: HandlerSpec) -> Next:
    """Cancels the run, which then counts as failed. A thread cannot be stopped: its handler can
    check `context.cancelled`, and its message is held until the thread ends."""
    seconds = spec.policy.timeout
    if seconds is None:
        return next

    async def run(delivery: Delivery, context: Context) -> Outcome:
        context.deadline = spec.clock.monotonic() + seconds
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await next(delivery, context)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(coded(f"timed out after {seconds:g} s", TIMED_OUT)) from error

    return run
