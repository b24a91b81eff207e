"""Makes the correlation id available to all code that runs for a message."""

from __future__ import annotations

from contextvars import ContextVar

from protoflow.context import Context
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next

_current: ContextVar[str | None] = ContextVar("protoflow_correlation_id", default=None)


def current_correlation_id() -> str | None:
    """Returns the current message's correlation id; None outside of handlers."""
    return _current.get()


def correlation_id(next: Next, spec: HandlerSpec) -> Next:
    """Sets the correlation id for a run; outputs inherit it. Without one, the message id is
    used."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        token = _current.set(context.correlation_id)
        try:
            return await next(delivery, context)
        finally:
            _current.reset(token)

    return run
