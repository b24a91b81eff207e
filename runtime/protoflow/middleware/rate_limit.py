"""At most so many runs a second, for each handler."""

from __future__ import annotations

from protoflow.context import Context
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Middleware, Next


def rate_limit(rate: float, *, burst: int = 1) -> Middleware:
    """Runs wait for their turn; waiting is no failure. The bound is per process and handler.

    Place it outside of `metrics` and `timeout` (`chain.add(..., before="tracer")`), or waits count
    as part of the run.

    Args:
        rate: runs a second.
        burst: how many may start at once after a quiet time.
    """
    if rate <= 0 or burst < 1:
        raise ConfigError("rate_limit: rate must be positive and burst at least 1")

    def limit(next: Next, spec: HandlerSpec) -> Next:
        now, sleep = spec.clock.monotonic, spec.clock.sleep
        interval, tolerance = 1.0 / rate, (burst - 1) / rate
        # The generic cell rate algorithm (ITU-T I.371): one number is the whole bucket.
        due = float("-inf")

        async def run(delivery: Delivery, context: Context) -> Outcome:
            nonlocal due
            moment = now()
            start = max(due, moment)
            due = start + interval
            wait = start - tolerance - moment
            if wait > 0:
                await sleep(wait)
            return await next(delivery, context)

        return run

    return limit
