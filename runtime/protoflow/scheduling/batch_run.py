"""One run of a batch handler, and what becomes of each of its messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protoflow.context import Context, OutputEncoder
from protoflow.errors import BatchFailed
from protoflow.message import Message
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Skip
from protoflow.retrying import as_outcome, given_up
from protoflow.scheduling.batching import BatchContext
from protoflow.scheduling.carrier import Carrier
from protoflow.scheduling.job import Job, Lanes


async def run_batch(
    jobs: Sequence[Job],
    encode: OutputEncoder,
    carrier: Carrier,
    lanes: Lanes,
    begin: Callable[[Job], None],
) -> None:
    """Runs the handler for these jobs.

    What cannot be decoded never reaches the handler. `BatchFailed` names the failed ones. Any
    other error of a batch of several blames nobody: its messages are handled again one by one.
    """
    good, contexts = _decoded(jobs, encode, carrier)
    if not good:
        return
    route = good[0].route
    batch = BatchContext(contexts, good[0].delivery, route.spec.name, route.spec.group, encode)
    outcome = await route.run(good[0].delivery, batch)
    cause = outcome.__cause__
    if isinstance(outcome, Done):
        carrier.done_together(good, _by_job(batch, good))
    elif isinstance(cause, BatchFailed) and _names_some(cause, good):
        _some_failed(good, batch, cause, carrier, lanes)
    elif isinstance(outcome, Skip | Postpone) or len(good) == 1:
        for job, context in zip(good, contexts, strict=True):
            carrier.carry_out(job, outcome, (), context.decoded)
    else:
        _one_by_one(good, lanes, begin)


def _decoded(
    jobs: Sequence[Job], encode: OutputEncoder, carrier: Carrier
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
            carrier.carry_out(job, outcome, (), context.decoded)
        except Exception as error:
            carrier.carry_out(job, given_up(error, spec))
        else:
            good.append(job)
            contexts.append(context)
    return good, contexts


def _by_job(batch: BatchContext, jobs: Sequence[Job]) -> list[tuple[Job | None, Message]]:
    """The outputs, each with the job that it is of; None is the batch as a whole."""
    return [
        (None if cause is None else jobs[cause], message) for cause, message in batch.take_caused()
    ]


def _names_some(failed: BatchFailed, jobs: Sequence[Job]) -> bool:
    return bool(failed.errors) and all(0 <= index < len(jobs) for index in failed.errors)


def _some_failed(
    jobs: Sequence[Job], batch: BatchContext, failed: BatchFailed, carrier: Carrier, lanes: Lanes
) -> None:
    """Acknowledges the others; a failed one takes the later ones of its key back with it."""
    broken = {jobs[index].lane for index in failed.errors} - {None}
    done: list[Job] = []
    back: list[Job] = []
    first_failure = {lane: min(i for i in failed.errors if jobs[i].lane == lane) for lane in broken}
    for index, job in enumerate(jobs):
        if job.lane in broken and index > first_failure[job.lane]:
            back.append(job)
        elif index not in failed.errors:
            done.append(job)
    outputs = [item for item in _by_job(batch, jobs) if item[0] is None or item[0] in done]
    lanes.take_back(back)
    if done:
        carrier.done_together(done, outputs)
    for index, error in failed.errors.items():
        if jobs[index] not in back:
            job = jobs[index]
            carrier.carry_out(job, _outcome(error, job), (), batch.items[index].decoded)


def _outcome(error: BaseException, job: Job) -> Outcome:
    if isinstance(error, DeadLetter | Skip):
        return error
    wrapped = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
    return as_outcome(wrapped, error, job.delivery, job.route.spec)


def _one_by_one(jobs: Sequence[Job], lanes: Lanes, begin: Callable[[Job], None]) -> None:
    turns: set[object] = set()
    back: list[Job] = []
    for job in jobs:
        job.single = True
        if job.lane is not None and job.lane in turns:
            back.append(job)
        else:
            turns.add(job.lane)
            begin(job)
    lanes.take_back(back)
