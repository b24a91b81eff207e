"""Sentry: one event for each message that is given up, with the message in its context."""

from __future__ import annotations

import asyncio

import sentry_sdk
from billing import Billing, config
from protoflow import Context, DeadLetter, Delivery, Outcome, Service, Skip
from protoflow.middleware import JobContext, alerting_hooks, default_chain
from protoflow.pipeline import HandlerSpec, Next
from sentry_sdk.integrations.logging import ignore_logger

sentry_sdk.init()  # SENTRY_DSN names the project
ignore_logger("protoflow.handler")  # the runtime logs the same errors


def scoped(next: Next, spec: HandlerSpec) -> Next:
    """Gives each run a scope of its own, so that runs do not see each other's tags."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        with sentry_sdk.isolation_scope() as scope:
            scope.set_transaction_name(spec.name)
            scope.set_tag("topic", spec.topic)
            scope.set_context("message", {"id": context.id, "attempt": context.attempt})
            return await next(delivery, context)

    return run


def report(job: JobContext, error: BaseException) -> None:
    if isinstance(job.outcome, DeadLetter | Skip):  # not a failure that is retried
        sentry_sdk.capture_exception(error)


chain = default_chain({"hooks": alerting_hooks(report)}).add("sentry", scoped, before="tracer")
service = Service(config(), middleware=chain)
service.register(Billing())

if __name__ == "__main__":
    asyncio.run(service.run())
