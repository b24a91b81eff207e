"""Carrying out outcomes: publish and acknowledge, wait and run again, dead-letter, skip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from protoflow.codecs.redaction import error_text, traceback_text
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.outcomes import DeadLetter, Done, Outcome, Retry
from protoflow.pipeline import HandlerSpec
from protoflow.retrying import Dropped, as_outcome
from protoflow.scheduling.job import Job
from protoflow.scheduling.letters import dead_letter, least_letter, retry_message
from protoflow.scheduling.settler import Settler
from protoflow.spec import OnExhausted, Ordering
from protoflow.transport import Subscription, Transport, delay_problem

_log = logging.getLogger("protoflow.handler")

#: Waits between attempts to publish a dead letter, in seconds: doubled from first to last.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_GATE = "dead letters cannot be published"
_EXHAUSTED = "exhausted messages block"
_WHY = {
    SettleResult.UNKNOWN: "not published: the transaction failed",
    SettleResult.REFUSED: "refused by the transport: too large, or no room",
}


class Host(Protocol):
    """What the carrier needs of the scheduler."""

    def again(self, job: Job) -> None:
        """The job's wait is over: it runs again, and has had its turn all the time."""

    def leave(self, job: Job) -> None:
        """The next of the job's lane may start."""

    def block(self, reason: str, blocked: bool) -> None:
        """Starts nothing more, and readiness turns red; or ends that."""

    def degrade(self, reason: str, detail: str | None) -> None:
        """Readiness turns red; None ends that."""


class Carrier:
    """Carries out the outcomes of one subscription."""

    def __init__(
        self, host: Host, transport: Transport, subscription: Subscription, settler: Settler,
        ordering: Ordering,
    ) -> None:  # fmt: skip
        self._host = host
        self._transport = transport
        self._subscription = subscription
        self._settler = settler
        self._ordered = ordering is not Ordering.NONE
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        self._burials: dict[asyncio.Task[None], Job] = {}
        #: How many burials have failed and are tried again.
        self._stuck = 0
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
        else:
            if isinstance(outcome, Dropped):
                self._failed(job)
                stats.dropped += 1
                stats.error(outcome)
                _log_outcome(logging.ERROR, "dropped", job, outcome, decoded)
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
            _log_outcome(logging.ERROR, "dropped", job, outcome, decoded)
            self.acknowledge(job)
            return
        _log_outcome(logging.ERROR, "dead-lettered", job, outcome, decoded)
        cause = outcome.__cause__ or outcome
        text = error_text(cause, decoded, _sensitive(spec))
        letter = dead_letter(job.delivery, spec, outcome, text, spec.clock.now())
        burial = self._loop.create_task(self._bury(job, letter))
        self._burials[burial] = job
        burial.add_done_callback(lambda task: self._burials.pop(task, None))

    def take_waiting(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs that wait in memory for their next run."""
        taken = [job for job in self._timers if unwanted(job)]
        for job in taken:
            self._timers.pop(job).cancel()
            self._blocks(job, False)
        return taken

    def take_burials(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs whose dead letter is not confirmed: it is not published any more."""
        taken = [(burial, job) for burial, job in self._burials.items() if unwanted(job)]
        for burial, _job in taken:
            burial.cancel()
        return [job for _burial, job in taken]

    async def buried(self, seconds: float) -> None:
        """Waits until every dead letter is confirmed, at most so long."""
        if self._burials:
            await asyncio.wait(self._burials, timeout=seconds)

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
        _log_outcome(logging.WARNING, f"failed, again in {delay:.1f} s", job, outcome, decoded)
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
                self._not_published(job, PublishError(f"the outputs are {_WHY[result]}"), others)
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

    async def _bury(self, job: Job, letter: Message) -> None:
        """Publishes the letter, for as long as it takes."""
        pause = _FIRST_PAUSE
        spec = job.route.spec
        blocked = False
        try:
            while (error := await self._try_burial(job, letter)) is not None:
                if isinstance(error, PublishRefusedError):
                    letter = least_letter(letter)
                if not blocked:
                    blocked = True
                    self._stuck += 1
                    self._host.block(_GATE, True)
                    _log.error(
                        "%s: a dead letter of %s is not published, the subscription pauses: %s",
                        spec.name, job.message.id, error,
                    )  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
        finally:
            if blocked:
                self._stuck -= 1
                if not self._stuck:
                    self._host.block(_GATE, False)
        spec.stats.dead_lettered += 1
        spec.stats.letters.add(job.delivery.failures, spec.clock.now())
        if job.lane is not None:
            self._host.leave(job)

    async def _try_burial(self, job: Job, letter: Message) -> Exception | None:
        """One attempt: None when the letter is safe and the job's settlement is on its way."""
        try:
            if job.route.spec.capabilities.atomic:
                settlement = Settlement(job.delivery, outputs=(letter,))
                done: asyncio.Future[SettleResult] = self._loop.create_future()
                job.after = lambda result: None if done.done() else done.set_result(result)
                self._settler.settle(job, settlement)
                result = await done
                job.after = None
                if result is SettleResult.REFUSED:
                    return PublishRefusedError(f"the letter is {_WHY[result]}")
                unknown = result is SettleResult.UNKNOWN
                return PublishError(f"the letter is {_WHY[result]}") if unknown else None
            # Shielded: a burial that is called off must not cancel the transport's future.
            errors = await asyncio.shield(self._transport.submit((letter,)))
        except Exception as error:  # whatever it is, the message stays unsettled
            return error
        if errors[0] is None:
            self._settler.settle(job, Settlement(job.delivery))
        return errors[0]


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


def _sensitive(spec: HandlerSpec) -> Sequence[str]:
    return spec.message.sensitive if spec.message is not None else ()


def _log_outcome(level: int, what: str, job: Job, outcome: Outcome, decoded: Any) -> None:
    if not _log.isEnabledFor(level):
        return
    spec = job.route.spec
    cause = outcome.__cause__ or outcome
    paths = _sensitive(spec)
    text = error_text(cause, decoded, paths)
    detail = ""
    if level >= logging.ERROR and outcome.__cause__ is not None:
        detail = "\n" + traceback_text(cause, decoded, paths).rstrip()
    _log.log(
        level,
        "%s: %s %s: %s%s%s",
        spec.name,
        job.message.id,
        what,
        type(cause).__name__,
        f": {text}" if text else "",
        detail,
        extra={
            "handler": spec.name,
            "topic": spec.topic,
            "message_id": job.message.id,
            "attempt": job.delivery.failures,
        },
    )
