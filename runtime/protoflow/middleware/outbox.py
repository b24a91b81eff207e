"""Stores outputs instead of publishing them; a relay publishes them later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.context import CONNECTION, Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import DONE, Outcome
from protoflow.pipeline import HandlerSpec, Middleware, Next

if TYPE_CHECKING:
    from protoflow.outbox import OutboxStore

__all__ = ["CONNECTION", "outbox"]


def outbox(store: OutboxStore | None = None) -> Middleware:
    """Stores outputs in the handler's database. Use it if the broker is not that database. The
    transaction of the
    application commits the handler's writes and its outputs together. SQL transports do not need
    it, because there publishing and settling are one transaction.

    If the store fails, the run fails.
    """

    def keep(next: Next, spec: HandlerSpec) -> Next:
        if store is None:
            return next
        write = store.store
        if spec.streams:
            raise ConfigError(
                f"{spec.name}: a stream of outputs is published while it is produced, so it "
                "cannot use the outbox; run the handler in a service without an outbox",
                code=MIDDLEWARE,
            )

        async def run(delivery: Delivery, context: Context) -> Outcome:
            outcome = await next(delivery, context)
            if outcome is DONE and context.outputs:
                await write(context.take_outputs(), context.values.get(CONNECTION))
                context.confirm()
            return outcome

        return run

    return keep
