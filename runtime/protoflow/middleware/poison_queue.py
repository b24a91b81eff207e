"""Turns errors that are not retried into dead letters."""

from __future__ import annotations

from protoflow.context import Context
from protoflow.failure_policy import given_up
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Retry
from protoflow.pipeline import HandlerSpec, Next


def poison_queue(next: Next, spec: HandlerSpec) -> Next:
    """Returns `DeadLetter` with the error as its cause, or drops the message, as `on_exhausted`
    requires."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        try:
            return await next(delivery, context)
        except Exception as error:
            if isinstance(error, Outcome) and not isinstance(error, Retry):
                return error
            return given_up(error, spec)

    return run
