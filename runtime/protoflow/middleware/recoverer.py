"""Turns every error that escapes the chain into an outcome, so that no worker dies."""

from __future__ import annotations

import asyncio
import logging

from protoflow.context import Context
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next

_log = logging.getLogger("protoflow.recoverer")


def recoverer(next: Next, spec: HandlerSpec) -> Next:
    """Treats an error of a middleware like an error of the handler. The same holds for a
    cancellation that the runtime did not request. It is the outermost middleware."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        try:
            return await next(delivery, context)
        except Outcome as outcome:
            return outcome
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return as_outcome(_Cancelled("cancelled by itself"), error, delivery, spec)
        except Exception as error:
            _log.warning(
                "a middleware failed", extra={"handler": spec.name, "error": type(error).__name__}
            )
            return as_outcome(error, error, delivery, spec)

    return run


class _Cancelled(Exception):  # noqa: N818  the name states what happened
    """A handler cancelled its own task; the runtime did not."""
