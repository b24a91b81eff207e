"""Limits the simultaneous runs of several handlers."""

from __future__ import annotations

import asyncio

from protoflow.context import Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Postpone
from protoflow.pipeline import HandlerSpec, Middleware, Next

#: Seconds for which a run waits in its worker, too short to affect a timeout.
_PATIENCE = 0.02
#: Seconds for which a run then leaves its worker to other runs.
_AGAIN = 0.05


def concurrency_limit(limit: int, *, handlers: frozenset[str] | None = None) -> Middleware:
    """Limits the runs of all handlers that share this middleware. A waiting message uses no attempt
    and
    holds no worker for long.

    Args:
        limit: the highest number of simultaneous runs in this process.
        handlers: full names of the handlers that share it; None means all handlers of the service.
    """
    if limit < 1:
        raise ConfigError("concurrency_limit: the limit must be at least 1", code=MIDDLEWARE)
    slots = asyncio.Semaphore(limit)

    def share(next: Next, spec: HandlerSpec) -> Next:
        if handlers is not None and spec.name not in handlers:
            return next

        async def run(delivery: Delivery, context: Context) -> Outcome:
            if slots.locked():
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await slots.acquire()
                except TimeoutError:
                    return Postpone(_AGAIN, "the limit of simultaneous runs is reached")
            else:
                await slots.acquire()
            try:
                return await next(delivery, context)
            finally:
                slots.release()

        return run

    return share
