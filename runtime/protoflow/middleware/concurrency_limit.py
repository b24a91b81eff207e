"""Limits the simultaneous runs of several handlers."""

from __future__ import annotations

import asyncio

from protoflow.context import Context
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Postpone
from protoflow.pipeline import HandlerSpec, Middleware, Next

#: Seconds for which a run waits in its turn, too short to matter to any timeout...
_PATIENCE = 0.02
#: ... and then gives its worker to others for so long.
_AGAIN = 0.05


def concurrency_limit(limit: int, *, handlers: frozenset[str] | None = None) -> Middleware:
    """Handlers that share this middleware share its limit. A waiting message uses no attempt and
    holds no worker for long.

    Args:
        limit: how many run at once in this process.
        handlers: full names of those that share it; None is all of the service.
    """
    if limit < 1:
        raise ConfigError("concurrency_limit: the limit must be at least 1")
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
                    return Postpone(_AGAIN, "as many run as may")
            else:
                await slots.acquire()
            try:
                return await next(delivery, context)
            finally:
                slots.release()

        return run

    return share
