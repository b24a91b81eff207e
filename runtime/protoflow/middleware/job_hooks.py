"""Callbacks at the start and the end of every run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any, TypeAlias

from protoflow.codecs.printable import printable
from protoflow.context import Context
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Postpone, Retry, Skip
from protoflow.pipeline import HandlerSpec, Middleware, Next

_log = logging.getLogger("protoflow.hooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """One run of a handler, as passed to hooks.

    Attributes:
        handler_name: the full name of the method.
        topic: the topic of the message.
        message_id: the message id.
        metadata: the string pairs beside the payload.
        context: the context of the run.
        started_at: the start of the run, in seconds since the epoch.
        duration: the duration in seconds; 0.0 at the start.
        retry_count: failed runs before this one.
        outcome: in `on_job_error`, what the policy makes of the failure: a `RetryAfter`, a
            `DeadLetter`, or a `Skip` if the message is dropped; otherwise None.
    """

    handler_name: str
    topic: str
    message_id: str
    metadata: Mapping[str, str]
    context: Context
    started_at: float
    duration: float = 0.0
    retry_count: int = 0
    outcome: Outcome | None = None


#: Called at start and at success; it may be asynchronous.
JobHook: TypeAlias = Callable[[JobContext], Awaitable[None] | None]
#: Called with the exception of a failed run.
JobErrorHook: TypeAlias = Callable[[JobContext, BaseException], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHooks:
    """Callbacks; each is optional. If one raises, the error is logged and the message is not
    affected.

    Attributes:
        on_job_start: called before the handler.
        on_job_done: called after it returned or skipped.
        on_job_error: called after it failed. It is not called if the run is cancelled or a later
            middleware postpones it, because the message runs again.
    """

    on_job_start: JobHook | None = None
    on_job_done: JobHook | None = None
    on_job_error: JobErrorHook | None = None

    def merge(self, other: JobHooks) -> JobHooks:
        """Returns hooks that call these and then the other hooks."""
        return JobHooks(
            on_job_start=_both(self.on_job_start, other.on_job_start),
            on_job_done=_both(self.on_job_done, other.on_job_done),
            on_job_error=_both(self.on_job_error, other.on_job_error),
        )


def job_hooks(hooks: JobHooks | None = None) -> Middleware:
    """Calls the hooks around each attempt."""

    def hook(next: Next, spec: HandlerSpec) -> Next:
        if hooks is None or hooks == JobHooks():
            return next
        name, topic, clock = spec.name, spec.topic, spec.clock
        start_hook, done_hook = hooks.on_job_start, hooks.on_job_done
        error_hook = hooks.on_job_error

        async def run(delivery: Delivery, context: Context) -> Outcome:
            job = JobContext(
                handler_name=name,
                topic=topic,
                message_id=context.id,
                metadata=context.metadata,
                context=context,
                started_at=clock.now(),
                retry_count=context.attempt - 1,
            )
            start = clock.monotonic()
            await _call(start_hook, job)
            try:
                outcome = await next(delivery, context)
            except Exception as error:
                job = replace(job, duration=clock.monotonic() - start)
                if isinstance(error, Skip):
                    await _call(done_hook, job)
                else:
                    if error_hook is not None:
                        job = replace(job, outcome=_outcome_of(error, delivery, spec))
                    await _call(error_hook, job, error)
                raise
            if type(outcome) is Postpone:
                return outcome
            await _call(done_hook, replace(job, duration=clock.monotonic() - start))
            return outcome

        return run

    return hook


def logging_hooks(logger: logging.Logger | None = None) -> JobHooks:
    """Logs starts and ends at INFO and failures at ERROR, with structured fields. Error texts are
    left out, because they may contain messages."""
    log = logger or logging.getLogger("protoflow.jobs")

    def started(job: JobContext) -> None:
        log.info("job started", extra=_fields(job))

    def done(job: JobContext) -> None:
        log.info("job done", extra=_fields(job))

    def failed(job: JobContext, error: BaseException) -> None:
        fields = {**_fields(job), "error": type(error).__name__}
        log.error("job failed", extra=fields)

    return JobHooks(on_job_start=started, on_job_done=done, on_job_error=failed)


def metrics_hooks(
    on_start: Callable[[str, str], None] | None = None,
    on_done: Callable[[str, str], None] | None = None,
    on_error: Callable[[str, str], None] | None = None,
) -> JobHooks:
    """Calls functions with handler and topic, so that you can count runs yourself."""

    def plain(call: Callable[[str, str], None] | None) -> JobHook | None:
        return call and (lambda job: call(job.handler_name, job.topic))

    counted = plain(on_error)
    return JobHooks(
        on_job_start=plain(on_start),
        on_job_done=plain(on_done),
        on_job_error=counted and (lambda job, _error: counted(job)),
    )


def alerting_hooks(alert: JobErrorHook) -> JobHooks:
    """Calls a function for every failed run."""
    return JobHooks(on_job_error=alert)


def _outcome_of(error: Exception, delivery: Delivery, spec: HandlerSpec) -> Outcome:
    if isinstance(error, Outcome) and not isinstance(error, Retry):
        return error
    return as_outcome(error, error, delivery, spec)


async def _call(hook: Callable[..., Any] | None, *args: Any) -> None:
    if hook is None:
        return
    try:
        result = hook(*args)
        if isawaitable(result):
            await result
    except Exception as error:
        name = getattr(hook, "__qualname__", type(hook).__name__)
        _log.warning("a job hook failed", extra={"hook": name, "error": type(error).__name__})


def _both(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return first or second

    async def call(*args: Any) -> None:
        await _call(first, *args)
        await _call(second, *args)

    return call


def _fields(job: JobContext) -> dict[str, Any]:
    return {
        "handler": job.handler_name,
        "topic": job.topic,
        "message_id": printable(job.message_id),
        "retry_count": job.retry_count,
        "duration_ms": round(job.duration * 1000, 3),
    }
