"""Turns failed runs into retries while the policy allows one."""

from __future__ import annotations

from protoflow.context import Context
from protoflow.failure_policy import retry_after
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Retry
from protoflow.pipeline import HandlerSpec, Next


def retry(next: Next, spec: HandlerSpec) -> Next:
    """Returns `Retry` with its wait. It passes the error of the last attempt to poison_queue.
    The scheduler holds the message during the wait."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        try:
            return await next(delivery, context)
        except Exception as error:
            if isinstance(error, Outcome) and not isinstance(error, Retry):
                return error
            outcome = retry_after(error, delivery, spec)
            if outcome is None:
                raise
            return outcome

    return run
