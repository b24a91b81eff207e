"""Carrying out outcomes: publish and acknowledge, wait and run again, dead-letter, skip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.contract.spec import OnExhausted, Ordering
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.failure_policy import Dropped, as_outcome
from protoflow.message import Action, Message, Settlement
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Retry
from protoflow.scheduling.dead_letter_publisher import Burials
from protoflow.scheduling.dead_letters import dead_letter, retry_message, stub
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_log import tell, told
from protoflow.scheduling.outputs import Outputs
from protoflow.scheduling.settler import Settler
from protoflow.transport.interface import Subscription, Transport

_log = logging.getLogger("protoflow.handler")

_EXHAUSTED = "exhausted messages block"


class Carrier:
    """Carries out the outcomes of one subscription."""

    def __init__(
        self, host: Host, transport: Transport, subscription: Subscription, settler: Settler,
        ordering: Ordering,
    ) -> None:  # fmt: skip
        self._host = host
        self._subscription = subscription
        self._settler = settler
        self._ordered = ordering is not Ordering.NONE
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        #: Retries on their way to the broker.
        self._deferring: set[Job] = set()
        #: Outputs on their way to the broker.
        self.outputs = Outputs(host, settler, self._not_published)
        #: Dead letters on their way to the broker.
        self.burials = Burials(host, transport, settler)
        #: Jobs whose attempts are exhausted and that are tried for ever (BLOCK).
        self.exhausted: set[Job] = set()

    def carry_out(
        self, job: Job, outcome: Outcome, outputs: Sequence[Message] = (), decoded: Any = None
    ) -> None:
        """Does what the outcome says. `decoded` is the message, to redact by.

        Nothing in a message or an error can raise out of here: what goes wrong with one job
        is that job's failure, and ends as a dead letter that names where the message lay.
        """
        try:
            self._carry_out(job, outcome, outputs, decoded)
        except Exception as error:
            self.failed(job, error)

    def failed(self, job: Job, error: Exception) -> None:
        """An outcome could not be carried out: the message is given up with the least that
        can be said of it."""
        spec = job.route.spec
        _log.error(
            "%s: the outcome of a message at %s/%s of %s could not be carried out: %s",
            spec.name, job.delivery.shard, job.delivery.position, spec.topic,
            type(error).__name__, exc_info=error,
        )  # fmt: skip
        self.burials.begin(job, stub(job.delivery, spec, type(error).__name__, spec.clock.now()))

    def acknowledge(self, job: Job) -> None:
        """Acknowledges without outputs, and ends the job's turn."""
        self.outputs.acknowledge(job)

    def settle(self, job: Job) -> None:
        """Acknowledges a job that is in no lane, or whose turn the caller ends."""
        self._settler.settle(job, Settlement(job.delivery))

    def give_up(
        self, job: Job, outcome: DeadLetter, then: Callable[[], None] = lambda: None
    ) -> None:
        """Dead-letters a job that did not run."""
        try:
            self._bury(job, outcome, None, then)
        except Exception as error:
            self.failed(job, error)

    def done_together(self, jobs: Sequence[Job], outputs: Sequence[Message]) -> None:
        """Acknowledges the jobs of a batch when its outputs are confirmed."""
        try:
            self.outputs.done(jobs, outputs)
        except Exception as error:
            for job in jobs:
                self.failed(job, error)

    def release(self, job: Job) -> None:
        """Gives back, uncounted."""
        job.route.spec.stats.released += 1
        delivery = job.delivery
        self._settler.settle(
            job,
            Settlement(delivery, Action.RELEASE, 0.0, delivery.failures, delivery.first_failure),
        )

    def hold(self, job: Job, delay: float) -> None:
        """Keeps the job in memory; it runs again after the wait."""
        self._timers[job] = self._loop.call_later(max(0.0, delay), self._over, job)

    def defer(self, job: Job, delay: float) -> None:
        """Keeps the job with the broker, where that can be; else in memory."""
        spec = job.route.spec
        if self._ordered or not spec.capabilities.broker_retry:
            self.hold(job, delay)
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
        self._deferring.add(job)

        def confirmed(refused: PublishRefusedError | None) -> None:
            if job not in self._deferring:
                return  # taken out meanwhile
            self._deferring.discard(job)
            if refused is None:
                self.acknowledge(job)
            else:  # the broker does not take it: memory does, the message stays unsettled
                _log.warning("%s: a retry could not be published: %s", spec.name, refused)
                self.hold(job, delay)

        self._settler.publish(job, (deferred,), confirmed)

    def forget(self, job: Job) -> None:
        """The job is not ours any more."""
        if job in self.exhausted:
            self._blocks(job, False)

    def take_waiting(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs that wait in memory for their next run."""
        taken = [job for job in self._timers if unwanted(job)]
        for job in taken:
            self._timers.pop(job).cancel()
            self._blocks(job, False)
        return taken

    def take_published(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs whose outputs, retries or dead letters are not confirmed, or whose
        settlements are repeated: nothing of them is published or settled any more."""
        taken = self.outputs.take(unwanted) + self.burials.take(unwanted)
        deferring = [job for job in self._deferring if unwanted(job)]
        self._deferring.difference_update(deferring)
        _outputs, settlements = self._settler.take(unwanted)
        return list(dict.fromkeys(taken + deferring + settlements))

    def publishes(self, wanted: Callable[[Job], bool]) -> bool:
        """Whether outputs or retries of such a job are on their way."""
        return any(map(wanted, self.outputs.publishing)) or any(map(wanted, self._deferring))

    @property
    def waiting(self) -> int:
        """How many jobs wait in memory for their next run."""
        return len(self._timers)

    def _carry_out(
        self, job: Job, outcome: Outcome, outputs: Sequence[Message], decoded: Any
    ) -> None:
        if job in self.exhausted:
            self._blocks(job, False)
        stats = job.route.spec.stats
        if isinstance(outcome, Done):
            self.outputs.done((job,), outputs)
        elif isinstance(outcome, Retry):
            self._failed(job)
            stats.retried += 1
            self._retry(job, outcome, decoded)
        elif isinstance(outcome, DeadLetter):
            self._failed(job)
            self._bury(job, outcome, decoded)
        elif isinstance(outcome, Postpone):
            self.hold(job, outcome.delay)
        else:
            if isinstance(outcome, Dropped):
                self._failed(job)
                stats.dropped += 1
                stats.error(outcome)
                tell(logging.ERROR, "dropped", job, outcome, decoded)
            else:
                stats.skipped += 1
            self.acknowledge(job)

    def _over(self, job: Job) -> None:
        del self._timers[job]
        self._host.again(job)

    def _failed(self, job: Job) -> None:
        delivery = job.delivery
        delivery.failures += 1
        job.route.spec.stats.failed_runs += 1
        if not delivery.first_failure:
            delivery.first_failure = job.route.spec.clock.now()

    def _retry(self, job: Job, outcome: Retry, decoded: Any) -> None:
        spec = job.route.spec
        spec.stats.error(outcome)
        delay = outcome.delay
        if delay is None:
            delay = spec.policy.retry.wait(job.delivery.failures, spec.clock.random())
        tell(logging.WARNING, f"failed, again in {delay:.1f} s", job, outcome, decoded)
        policy = spec.policy
        if (
            job.delivery.failures >= policy.retry.max_attempts
            and policy.on_exhausted is OnExhausted.BLOCK
        ):
            self._blocks(job, True)  # held here, so that readiness tells the truth
            self.hold(job, delay)
        elif delay <= spec.config.retry_in_place:
            self.hold(job, delay)
        else:
            self.defer(job, delay)

    def _blocks(self, job: Job, blocks: bool) -> None:
        """Whether the job is one that is tried for ever; readiness follows."""
        if blocks:
            self.exhausted.add(job)
        else:
            self.exhausted.discard(job)
        ids = ", ".join(sorted(one.message.id for one in self.exhausted)[:3])
        count = len(self.exhausted)
        self._host.degrade(_EXHAUSTED, f"{count} {_EXHAUSTED}: {ids}" if ids else None)

    def _bury(
        self, job: Job, outcome: DeadLetter, decoded: Any,
        then: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Dead-letters; the job is acknowledged when the letter is confirmed, never before."""
        spec = job.route.spec
        spec.stats.error(outcome)
        if not spec.capabilities.at_least_once:
            spec.stats.dropped += 1
            tell(logging.ERROR, "dropped", job, outcome, decoded)
            self.acknowledge(job)
            then()
            return
        tell(logging.ERROR, "dead-lettered", job, outcome, decoded)
        text = told(outcome.__cause__ or outcome, decoded, job)
        letter = dead_letter(job.delivery, spec, outcome, text, spec.clock.now())
        self.burials.begin(job, letter, then)

    def _not_published(self, jobs: Sequence[Job], error: PublishError) -> None:
        """Outputs are refused for good. Of a batch nobody knows whose they are."""
        if len(jobs) > 1:
            self._host.one_by_one(jobs)
            return
        job = jobs[0]
        self.carry_out(job, as_outcome(error, error, job.delivery, job.route.spec))
