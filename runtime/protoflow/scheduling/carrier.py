"""Carrying out outcomes: publish and acknowledge, wait and run again, dead-letter, skip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.codecs.redaction import error_text
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.outcomes import DeadLetter, Done, Outcome, Postpone, Retry
from protoflow.pipeline import HandlerSpec
from protoflow.retrying import Dropped, as_outcome
from protoflow.scheduling.burials import WHY, Burials
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.letters import dead_letter, retry_message
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.telling import evidence_of, sensitive, tell
from protoflow.spec import OnExhausted, Ordering
from protoflow.transport import Subscription, Transport, delay_problem

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
        #: Dead letters on their way to the broker.
        self.burials = Burials(host, transport, settler)
        #: Jobs whose attempts are exhausted and that are tried for ever (BLOCK).
        self.exhausted: set[Job] = set()
        #: Jobs whose outputs or retries are on their way to the broker.
        self.publishing: set[Job] = set()

    def carry_out(
        self, job: Job, outcome: Outcome, outputs: Sequence[Message] = (), decoded: Any = None
    ) -> None:
        """Does what the outcome says. `decoded` is the message, to redact by."""
        if job in self.exhausted:
            self._blocks(job, False)
        stats = job.route.spec.stats
        if isinstance(outcome, Done):
            self._done(job, outputs)
        elif isinstance(outcome, Retry):
            self._failed(job)
            stats.retried += 1
            self._retry(job, outcome, decoded)
        elif isinstance(outcome, DeadLetter):
            self._failed(job)
            self.bury(job, outcome, decoded)
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

    def acknowledge(self, job: Job) -> None:
        """Acknowledges without outputs."""
        self._settler.settle(job, Settlement(job.delivery))
        if job.lane is not None:
            self._host.leave(job)

    def release(self, job: Job) -> None:
        """Gives back, uncounted."""
        job.route.spec.stats.released += 1
        delivery = job.delivery
        self._settler.settle(
            job,
            Settlement(delivery, Action.RELEASE, 0.0, delivery.failures, delivery.first_failure),
        )

    def done_together(
        self, jobs: Sequence[Job], outputs: Sequence[tuple[Job | None, Message]]
    ) -> None:
        """Acknowledges the jobs of a batch when its outputs are confirmed; each output comes
        with the job that it is of, None is the batch as a whole."""
        first, *others = jobs
        if first.route.spec.capabilities.atomic and all(job is not None for job, _ in outputs):
            by_job: dict[Job | None, list[Message]] = {}
            for owner, message in outputs:
                by_job.setdefault(owner, []).append(message)
            for job in jobs:
                self._done(job, by_job.get(job, ()))
            return

        def confirmed() -> None:
            for job in others:
                job.route.spec.stats.handled += 1
                self.acknowledge(job)

        self._done(first, [message for _, message in outputs], confirmed, others)

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
        self.publishing.add(job)

        def confirmed(error: PublishError | None) -> None:
            self.publishing.discard(job)
            if error is None:
                self.acknowledge(job)
            else:  # the broker does not take it: memory does, the message stays unsettled
                _log.warning("%s: a retry could not be published: %s", spec.name, error)
                self.hold(job, delay)

        self._settler.publish((deferred,), confirmed)

    def bury(self, job: Job, outcome: DeadLetter, decoded: Any = None) -> None:
        """Dead-letters; the job is acknowledged when the letter is confirmed, never before."""
        spec = job.route.spec
        spec.stats.error(outcome)
        if not spec.capabilities.at_least_once:
            spec.stats.dropped += 1
            tell(logging.ERROR, "dropped", job, outcome, decoded)
            self.acknowledge(job)
            return
        tell(logging.ERROR, "dead-lettered", job, outcome, decoded)
        cause = outcome.__cause__ or outcome
        text = error_text(cause, evidence_of(job, decoded), sensitive(spec))
        letter = dead_letter(job.delivery, spec, outcome, text, spec.clock.now())
        self.burials.begin(job, letter)

    def take_waiting(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs that wait in memory for their next run."""
        taken = [job for job in self._timers if unwanted(job)]
        for job in taken:
            self._timers.pop(job).cancel()
            self._blocks(job, False)
        return taken

    @property
    def waiting(self) -> int:
        """How many jobs wait in memory for their next run."""
        return len(self._timers)

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

    def _done(
        self,
        job: Job,
        outputs: Sequence[Message],
        then: Callable[[], None] = lambda: None,
        others: Sequence[Job] = (),
    ) -> None:
        spec = job.route.spec
        if not outputs:
            spec.stats.handled += 1
            self.acknowledge(job)
            then()
            return
        refused = _refused(outputs, spec)
        if refused is not None:
            self._not_published(job, refused, others)
        elif spec.capabilities.atomic:
            self._done_atomically(job, outputs, then, others)
        else:
            self._done_in_turn(job, outputs, then, others)

    def _done_in_turn(
        self, job: Job, outputs: Sequence[Message], then: Callable[[], None], others: Sequence[Job]
    ) -> None:
        """Publish, confirm, settle."""
        self.publishing.add(job)

        def confirmed(error: PublishError | None) -> None:
            self.publishing.discard(job)
            if error is not None:
                self._not_published(job, error, others)
                return
            _confirmed(job, outputs)
            self.acknowledge(job)
            then()

        self._settler.publish(outputs, confirmed)

    def _done_atomically(
        self, job: Job, outputs: Sequence[Message], then: Callable[[], None], others: Sequence[Job]
    ) -> None:
        """Publish and settle in one transaction."""
        self.publishing.add(job)

        def settled(result: SettleResult) -> None:
            job.after = None
            self.publishing.discard(job)
            if result is SettleResult.UNKNOWN or result is SettleResult.REFUSED:
                self._not_published(job, PublishError(f"the outputs are {WHY[result]}"), others)
                return
            if result is SettleResult.DONE:
                _confirmed(job, outputs)
            if job.lane is not None:
                self._host.leave(job)
            then()

        job.after = settled
        self._settler.settle(job, Settlement(job.delivery, outputs=outputs))

    def _not_published(self, job: Job, error: PublishError, others: Sequence[Job]) -> None:
        for one in (job, *others):
            outcome = as_outcome(error, error, one.delivery, one.route.spec)
            self.carry_out(one, outcome)


def _refused(outputs: Sequence[Message], spec: HandlerSpec) -> PublishRefusedError | None:
    """Why an output can never be published: a delay that cannot be kept, or its size."""
    limit = spec.capabilities.max_message_bytes
    for message in outputs:
        if message.delay > 0 and (text := delay_problem(message, spec.capabilities)):
            return PublishRefusedError(text)
        if limit is not None and message.payload is not None and len(message.payload) > limit:
            return PublishRefusedError(
                f"an output of {len(message.payload)} bytes to {message.topic} is refused: "
                f"the broker takes {limit}"
            )
    return None


def _confirmed(job: Job, outputs: Sequence[Message]) -> None:
    job.route.spec.stats.handled += 1
    job.route.spec.stats.confirmed(outputs)
    if job.confirmed is not None:
        job.confirmed()
