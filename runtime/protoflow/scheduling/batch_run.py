"""One run of a batch handler, and the outcome of each of its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from protoflow.context import Context, OutputEncoder
from protoflow.errors import BatchFailed
from protoflow.failure_policy import as_outcome, given_up
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Skip
from protoflow.scheduling.batching import BatchContext
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier


class BatchHost(Protocol):
    """The part of the scheduler that a batch uses."""

    def run_singly(self, jobs: Sequence[Job]) -> None:
        """Runs each job again by itself; the jobs have their turns already."""

    def escaped(self, error: BaseException, job: Job, context: Context) -> Outcome:
        """Returns the failed run for an error that no middleware caught, or raises the error."""
        ...

    def cancelled(self, jobs: Sequence[Job]) -> None:
        """Gives the jobs back because the runtime cancelled their run."""


async def run_batch(
    jobs: Sequence[Job],
    encode: OutputEncoder,
    applier: OutcomeApplier,
    lanes: Lanes,
    host: BatchHost,
) -> None:
    """Runs the handler for these jobs.

    Undecodable messages never reach the handler. `BatchFailed` names the failed ones. After any
    other error of a batch of several, its messages are handled again one by one.
    """
    good, contexts = _decoded(jobs, encode, applier)
    if not good:
        return
    route = good[0].route
    batch = BatchContext(contexts, good[0].delivery, route.spec.name, route.spec.group, encode)
    try:
        outcome = await route.run(good[0].delivery, batch)
    except BaseException as error:
        try:
            outcome = host.escaped(error, good[0], batch)
        except asyncio.CancelledError:
            host.cancelled(good)  # undecodable messages have ended already
            raise
    if any(job.lost for job in good):
        host.cancelled(good)  # the handler turned its cancellation into another error
        return
    try:
        _apply(good, contexts, batch, outcome, applier, lanes, host)
    except Exception as error:
        for job in good:
            applier.failed(job, error)


def _apply(
    good: Sequence[Job], contexts: Sequence[Context], batch: BatchContext, outcome: Outcome,
    applier: OutcomeApplier, lanes: Lanes, host: BatchHost,
) -> None:  # fmt: skip
    cause = outcome.__cause__
    if isinstance(outcome, Done):
        applier.done_together(good, [message for _cause, message in batch.take_caused()])
    elif isinstance(cause, BatchFailed) and _names_some(cause, good):
        _some_failed(good, batch, cause, applier, lanes)
    elif isinstance(outcome, Skip | Postpone) or len(good) == 1:
        for job, context in zip(good, contexts, strict=True):
            applier.apply_outcome(job, outcome, (), context.decoded)
    else:
        host.run_singly(good)


def _decoded(
    jobs: Sequence[Job], encode: OutputEncoder, applier: OutcomeApplier
) -> tuple[list[Job], list[Context]]:
    good: list[Job] = []
    contexts: list[Context] = []
    for job in jobs:
        spec = job.route.spec
        attempt = job.delivery.failures + 1
        context = Context(job.delivery, job.message, attempt, spec.name, spec.group, encode)
        try:
            decoded = spec.decode(context)
            for check in spec.checks:
                check(decoded)
        except DeadLetter as outcome:
            applier.apply_outcome(job, outcome, (), context.decoded)
        except Exception as error:
            applier.apply_outcome(job, given_up(error, spec))
        else:
            good.append(job)
            contexts.append(context)
    return good, contexts


def _names_some(failed: BatchFailed, jobs: Sequence[Job]) -> bool:
    return bool(failed.errors) and all(0 <= index < len(jobs) for index in failed.errors)


def _some_failed(
    jobs: Sequence[Job],
    batch: BatchContext,
    failed: BatchFailed,
    applier: OutcomeApplier,
    lanes: Lanes,
) -> None:
    """Acknowledges the good messages; later messages of a failed message's key are retried."""
    broken = {jobs[index].lane for index in failed.errors} - {None}
    done: list[Job] = []
    back: list[Job] = []
    first_failure = {lane: min(i for i in failed.errors if jobs[i].lane == lane) for lane in broken}
    for index, job in enumerate(jobs):
        if job.lane in broken and index > first_failure[job.lane]:
            back.append(job)
        elif index not in failed.errors:
            done.append(job)
    outputs = [
        message for cause, message in batch.take_caused() if cause is None or jobs[cause] in done
    ]
    lanes.take_back(back)
    if done:
        applier.done_together(done, outputs)
    for index, error in failed.errors.items():
        if jobs[index] not in back:
            job = jobs[index]
            applier.apply_outcome(job, _outcome(error, job), (), batch.items[index].decoded)


def _outcome(error: BaseException, job: Job) -> Outcome:
    if isinstance(error, DeadLetter | Skip):
        return error
    wrapped = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
    return as_outcome(wrapped, error, job.delivery, job.route.spec)
