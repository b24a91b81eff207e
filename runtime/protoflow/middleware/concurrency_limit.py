"""At most so many runs at once, over several handlers."""

from __future__ import annotations

import asyncio

from protoflow.context import Context
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Middleware, Next


def concurrency_limit(limit: int, *, handlers: frozenset[str] | None = None) -> Middleware:
    """Runs of all handlers that share this middleware wait for one another.

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
            async with slots:
                return await next(delivery, context)

        return run

    return share
