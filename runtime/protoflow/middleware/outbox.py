"""Stores outputs in place of publishing them; a relay publishes them later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.context import CONNECTION, Context
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import DONE, Outcome
from protoflow.pipeline import HandlerSpec, Middleware, Next

if TYPE_CHECKING:
    from protoflow.outbox import OutboxStore


def outbox(store: OutboxStore | None = None) -> Middleware:
    """For a database beside a broker that knows nothing of it: the handler's writes and its
    outputs are committed together, by whoever opened the transaction, and a crash in between
    loses neither. On SQL transports nobody needs this: publishing and settling are one
    transaction there.

    A store that fails is a failed run.
    """

    def keep(next: Next, spec: HandlerSpec) -> Next:
        if store is None:
            return next
        write = store.store
        if spec.streams:
            raise ConfigError(
                f"{spec.name}: a stream of outputs goes out as it is yielded, not through the "
                "outbox; run the handler in a service without one"
            )

        async def run(delivery: Delivery, context: Context) -> Outcome:
            outcome = await next(delivery, context)
            if outcome is DONE and context.outputs:
                await write(context.take_outputs(), context.values.get(CONNECTION))
                context.confirm()
            return outcome

        return run

    return keep
