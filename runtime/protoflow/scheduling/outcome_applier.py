"""Applying outcomes: publish and acknowledge, wait and run again, dead-letter, skip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.contract.spec import OnExhausted, Ordering
from protoflow.counted import counted
from protoflow.errors import PublishRefusedError, TransportError
from protoflow.failure_policy import Dropped, as_outcome, scheduled_retry
from protoflow.message import Action, Message, Settlement
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Retry, RetryAfter
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.completed_runs import Outputs
from protoflow.scheduling.dead_letter_publisher import DeadLetterPublisher
from protoflow.scheduling.hop_state import dead_letter_message, retry_message, stub
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_log import log_outcome, reported_text
from protoflow.scheduling.settler import Settler
from protoflow.transport.interface import Subscription

_log = logging.getLogger("protoflow.handler")

_EXHAUSTED = "exhausted messages block"


class OutcomeApplier:
    """Applies the outcomes of one subscription.

    Args:
        host: the engine.
        submitter: publishes dead letters.
        subscription: keeps retries at the broker.
        settler: publishes outputs, and settles.
        ordering: if messages are ordered, waits are kept in memory.
    """

    def __init__(
        self, host: Host, submitter: Submitter, subscription: Subscription, settler: Settler,
        ordering: Ordering,
    ) -> None:  # fmt: skip
        self._host = host
        self._subscription = subscription
        self._settler = settler
        self._ordered = ordering is not Ordering.NONE
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        #: Jobs whose retries the broker has not confirmed yet.
        self._deferring: dict[Job, None] = {}
        self.outputs = Outputs(host, settler, self._not_published)
        self.dead_letters = DeadLetterPublisher(host, submitter, settler)
        #: Jobs that have used up their attempts and are retried without limit (BLOCK).
        self.exhausted: set[Job] = set()

    def apply_outcome(
        self, job: Job, outcome: Outcome, outputs: Sequence[Message] = (), decoded: Any = None
    ) -> None:
        """Applies an outcome. `decoded` is the message; redaction uses it.

        No content of a message or an error makes this method raise. An error in one job fails that
        job only; the result is a dead letter that names the message's position.
        """
        try:
            self._apply(job, outcome, outputs, decoded)
        except Exception as error:
            self.failed(job, error)

    def failed(self, job: Job, error: Exception) -> None:
        """Dead-letters a job whose outcome could not be applied, with a stub."""
        spec = job.route.spec
        _log.error(
            "an outcome was not applied",
            extra={
                "handler": spec.name,
                "topic": spec.topic,
                "partition": str(job.delivery.shard),
                "position": str(job.delivery.position),
                "error": type(error).__name__,
            },
            exc_info=error,
        )
        dead_letter = stub(job.delivery, spec, type(error).__name__, spec.clock.now())
        self.dead_letters.publish(job, dead_letter)

    def acknowledge(self, job: Job) -> None:
        """Acknowledges without outputs, and ends the job's turn."""
        self.outputs.acknowledge(job)

    def settle(self, job: Job) -> None:
        """Acknowledges a job without a lane, or whose turn the caller ends."""
        self._settler.settle(job, Settlement(job.delivery))

    def give_up(
        self, job: Job, outcome: DeadLetter, on_settled: Callable[[], None] = lambda: None
    ) -> None:
        """Dead-letters a job that did not run."""
        try:
            self._dead_letter(job, outcome, None, on_settled)
        except Exception as error:
            self.failed(job, error)

    def done_together(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        """Acknowledges the jobs of a batch once its outputs are confirmed."""
        try:
            self.outputs.done(jobs, outputs)
        except Exception as error:
            for job in jobs:
                self.failed(job, error)

    def release(self, job: Job) -> None:
        """Gives the message back, uncounted. If the message was exhausted and its dead letter is
        not confirmed, its last run is repeated: a run number above the limit is not allowed."""
        spec, delivery = job.route.spec, job.delivery
        spec.stats.released += 1
        failures = delivery.failures
        if spec.policy.on_exhausted is not OnExhausted.BLOCK:
            failures = min(failures, spec.policy.retry.max_attempts - 1)
        self._settler.settle(
            job,
            Settlement(delivery, Action.RELEASE, 0.0, failures, delivery.first_failure),
        )

    def wait(self, job: Job, delay: float) -> None:
        """Keeps the job for its next run: in memory, or with the broker if the wait is long."""
        if delay <= job.route.spec.config.retry_in_place:
            self._wait_in_memory(job, delay)
        else:
            self._wait_at_broker(job, delay)

    def forget(self, job: Job) -> None:
        """Drops a lost job."""
        if job in self.exhausted:
            self._mark_exhausted(job, False)

    def take_waiting(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Removes and returns jobs that wait in memory for their next run."""
        taken = [job for job in self._timers if unwanted(job)]
        for job in taken:
            self._timers.pop(job).cancel()
            self._mark_exhausted(job, False)
        return taken

    def take_published(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Removes jobs whose outputs, retries or dead letters are not confirmed, or whose
        settlements are repeated. They are no longer published or settled."""
        taken = self.outputs.take(unwanted) + self.dead_letters.take(unwanted)
        deferring = [job for job in self._deferring if unwanted(job)]
        for job in deferring:
            del self._deferring[job]
        _outputs, settlements = self._settler.take(unwanted)
        return list(dict.fromkeys(taken + deferring + settlements))

    def publishes(self, wanted: Callable[[Job], bool]) -> bool:
        """Whether outputs or retries of such a job are unconfirmed."""
        return any(map(wanted, self.outputs.publishing)) or any(map(wanted, self._deferring))

    @property
    def waiting(self) -> int:
        """Returns the number of jobs that wait in memory for their next run."""
        return len(self._timers)

    def _apply(self, job: Job, outcome: Outcome, outputs: Sequence[Message], decoded: Any) -> None:
        if job in self.exhausted:
            self._mark_exhausted(job, False)
        stats = job.route.spec.stats
        if isinstance(outcome, Done):
            self.outputs.done((job,), outputs)
        elif isinstance(outcome, Retry):
            self._retry(job, outcome, decoded)
        elif isinstance(outcome, DeadLetter):
            self._count_failure(job)
            self._dead_letter(job, outcome, decoded)
        elif isinstance(outcome, Postpone):
            self._wait_in_memory(job, outcome.delay)
        else:
            if isinstance(outcome, Dropped):
                self._count_failure(job)
                stats.dropped += 1
                stats.error(outcome)
                log_outcome(logging.ERROR, "dropped", job, outcome, decoded)
            else:
                stats.skipped += 1
            self.acknowledge(job)

    def _count_failure(self, job: Job) -> None:
        delivery = job.delivery
        delivery.failures += 1
        job.route.spec.stats.failed_runs += 1
        if not delivery.first_failure:
            delivery.first_failure = job.route.spec.clock.now()

    def _retry(self, job: Job, outcome: Retry, decoded: Any) -> None:
        spec = job.route.spec
        if not isinstance(outcome, RetryAfter) or outcome.blocks is None:
            # The outcome comes from a middleware and has not passed the failure policy.
            outcome = scheduled_retry(outcome, job.delivery, spec)
        self._count_failure(job)
        spec.stats.retried += 1
        spec.stats.error(outcome)
        delay = outcome.delay
        log_outcome(logging.WARNING, f"failed, again in {delay:.1f} s", job, outcome, decoded)
        if outcome.blocks:
            self._mark_exhausted(job, True)  # the job is kept here, so that readiness can report it
            self._wait_in_memory(job, delay)
        else:
            self.wait(job, delay)

    def _wait_in_memory(self, job: Job, delay: float) -> None:
        self._timers[job] = self._loop.call_later(max(0.0, delay), self._waited, job)

    def _waited(self, job: Job) -> None:
        del self._timers[job]
        self._host.run_again(job)

    def _wait_at_broker(self, job: Job, delay: float) -> None:
        """Keeps the job at the broker if possible, otherwise in memory."""
        spec = job.route.spec
        if self._ordered or not spec.capabilities.broker_retry:
            self._wait_in_memory(job, delay)
            return
        delivery = job.delivery
        message = retry_message(delivery, spec, spec.clock.now() + delay)
        deferred = self._subscription.defer(message, delay)
        if deferred is None:
            self._settler.settle(
                job,
                Settlement(delivery, Action.NACK, delay, delivery.failures, delivery.first_failure),
            )
            return
        self._deferring[job] = None

        def confirmed(refused: PublishRefusedError | None) -> None:
            if job not in self._deferring:
                return  # the job was removed in the meantime
            del self._deferring[job]
            if refused is None:
                self.acknowledge(job)
            else:  # the broker refused the retry: the message waits in memory, unsettled
                _log.warning(
                    "a retry was not published, and waits in memory",
                    extra={"handler": spec.name, "error": str(refused)},
                )
                self._wait_in_memory(job, delay)

        self._settler.publish_retry(job, deferred, confirmed)

    def _mark_exhausted(self, job: Job, exhausted: bool) -> None:
        """Adds or removes a job that is retried without limit, and updates readiness."""
        if exhausted:
            self.exhausted.add(job)
        else:
            self.exhausted.discard(job)
        ids = ", ".join(sorted(one.message.id for one in self.exhausted)[:3])
        count = counted(len(self.exhausted), "exhausted message")
        self._host.mark_unready(_EXHAUSTED, f"blocked by {count}: {ids}" if ids else None)

    def _dead_letter(
        self, job: Job, outcome: DeadLetter, decoded: Any,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Dead-letters a job; it is acknowledged after the dead letter is confirmed."""
        spec = job.route.spec
        spec.stats.error(outcome)
        if not spec.capabilities.at_least_once:
            spec.stats.dropped += 1
            log_outcome(logging.ERROR, "dropped", job, outcome, decoded)
            self.acknowledge(job)
            on_settled()
            return
        log_outcome(logging.ERROR, "dead-lettered", job, outcome, decoded)
        text = reported_text(outcome.__cause__ or outcome, decoded, job)
        message = dead_letter_message(job.delivery, spec, outcome, text, spec.clock.now())
        self.dead_letters.publish(job, message, on_settled)

    def _not_published(self, jobs: Sequence[Job], error: TransportError) -> None:
        """Handles permanently refused outputs. Those of a batch may belong to any message."""
        if len(jobs) > 1:
            self._host.run_singly(jobs)
            return
        job = jobs[0]
        self.apply_outcome(job, as_outcome(error, error, job.delivery, job.route.spec))
