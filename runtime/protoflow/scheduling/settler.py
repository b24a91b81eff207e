"""Settling: outputs confirmed first, then the settlement, all in batches.

All results of one turn of the event loop are sent together, with one `submit` and one `settle`. So
a busy service does not pay for these calls per message.

Each entry of a batch succeeds or fails by itself. Outputs that the broker did not store, and
settlements with an unknown outcome, are repeated with the same ids and values until the broker
answers or the delivery is lost. Only a refusal is an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.errors import PublishRefusedError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Submitter, unconfirmed
from protoflow.scheduling.job import Job
from protoflow.transport.answers import failure_of
from protoflow.transport.interface import Subscription
from protoflow.transport.kit.backoff import Backoff

_log = logging.getLogger("protoflow.settler")

#: Waits between repetitions, in seconds.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

#: Called when outputs are confirmed (None) or refused permanently.
Confirmed = Callable[[PublishRefusedError | None], None]


class _Outputs:
    """The outputs of one job that are not confirmed yet."""

    __slots__ = ("confirmed", "job", "messages")

    def __init__(self, job: Job, messages: Sequence[Message], confirmed: Confirmed) -> None:
        self.job = job
        self.messages = messages
        self.confirmed = confirmed


class Settler:
    """Publishes and settles for one subscription.

    Attributes:
        routes: divides outputs by transport; None if there is only one transport.

    Args:
        submitter: publishes outputs.
        subscription: settles.
        settled: called with jobs whose settlements were answered; the answer is never UNKNOWN.
        failed: called with a job whose callback raised, and the error.
    """

    routes: OutputRoutes | None = None

    def __init__(
        self,
        submitter: Submitter,
        subscription: Subscription,
        settled: Callable[[Sequence[Job], Sequence[SettleResult]], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self._submitter = submitter
        self._subscription = subscription
        self._settled = settled
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._suspended = False
        self._jobs: list[Job] = []
        self._settlements: list[Settlement] = []
        self._outbox: list[_Outputs] = []
        self._messages: list[Message] = []
        #: Entries that await an answer of the broker, and since when.
        self._pending: dict[asyncio.Future[Any], float] = {}
        #: Entries that are repeated after a wait.
        self._unconfirmed: list[_Outputs] = []
        self._unknown: dict[Job, Settlement] = {}
        self._failing_since: float | None = None
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        self._timer: asyncio.TimerHandle | None = None

    def settle(self, job: Job, settlement: Settlement) -> None:
        """Settles the job with the next batch."""
        self._jobs.append(job)
        self._settlements.append(settlement)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def settle_together(self, jobs: Sequence[Job], settlements: Sequence[Settlement]) -> None:
        """Settles several jobs with the next batch."""
        self._jobs.extend(jobs)
        self._settlements.extend(settlements)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def publish(self, job: Job, messages: Sequence[Message], confirmed: Confirmed) -> None:
        """Publishes for a job with the next batch, in the order of the calls.

        The call to the broker is repeated until all outputs are confirmed or one is refused.
        """
        self._messages.extend(messages)
        self._outbox.append(_Outputs(job, messages, confirmed))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def suspend(self) -> None:
        """Keeps new entries until `resume`."""
        self._suspended = True

    def resume(self) -> None:
        """Ends `suspend`."""
        self._suspended = False
        self.flush()

    def flush(self) -> None:
        """Sends all entries to the broker now."""
        self._scheduled = False
        if self._suspended:
            return
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            messages, self._messages = self._messages, []
            published = self._submitter.submit(messages)
            self._watch(published, lambda done: self._published(outbox, messages, done))
        if self._settlements:
            jobs, self._jobs = self._jobs, []
            settlements, self._settlements = self._settlements, []
            try:
                settled = self._subscription.settle(settlements)
            except Exception as error:  # no error is expected here, but no entry may wait for it
                settled = self._loop.create_future()
                settled.set_exception(error)
            self._watch(settled, lambda done: self._answered(jobs, settlements, done))

    def publish_retry(self, job: Job, message: Message, confirmed: Confirmed) -> None:
        """Publishes a retry, which stays on the transport of its message."""
        self.publish(job, (message,), confirmed)

    @property
    def busy(self) -> bool:
        """Whether an answer of a broker is awaited, or an entry must be repeated."""
        return self._unfinished

    @property
    def _unfinished(self) -> bool:
        return bool(
            self._pending or self._outbox or self._settlements or self._unconfirmed or self._unknown
        )

    def problem(self, patience: float) -> str | None:
        """Describes outputs and settlements unconfirmed for `patience` seconds, or None."""
        since = min(self._pending.values(), default=self._failing_since)
        if self._failing_since is not None and since is not None:
            since = min(since, self._failing_since)
        if since is None or self._loop.time() - since < patience:
            return None
        outputs, settlements = len(self._unconfirmed), len(self._unknown)
        return (
            f"the broker has confirmed nothing for {self._loop.time() - since:.0f} s "
            f"({outputs} outputs and {settlements} settlements are repeated)"
        )

    def take(self, wanted: Callable[[Job], bool]) -> tuple[list[Job], list[Job]]:
        """Stops repeating entries of these jobs. Returns the jobs with unconfirmed outputs, and the
        jobs with settlements of unknown outcome."""
        outputs = [entry.job for entry in self._unconfirmed if wanted(entry.job)]
        self._unconfirmed = [entry for entry in self._unconfirmed if not wanted(entry.job)]
        settlements = [job for job in self._unknown if wanted(job)]
        for job in settlements:
            del self._unknown[job]
        self._end_repeating()
        return outputs, settlements

    async def drained(self) -> None:
        """Waits until every entry is answered and none must be repeated."""
        while self._unfinished:
            self.flush()
            if self._pending:
                await asyncio.wait(self._pending)
            elif self._timer is not None or self._suspended:
                await asyncio.sleep(_FIRST_WAIT / 2)
            await asyncio.sleep(0)  # callbacks of ended jobs may publish or settle

    async def settlements_drained(self) -> None:
        """Waits until the settlements are answered; outputs on other transports do not matter."""
        await self.drained()

    def _watch(
        self, future: asyncio.Future[Any], ended: Callable[[asyncio.Future[Any]], None]
    ) -> None:
        self._pending[future] = self._loop.time()

        def done(future: asyncio.Future[Any]) -> None:
            del self._pending[future]
            ended(future)

        future.add_done_callback(done)

    def _published(
        self, outbox: Sequence[_Outputs], messages: Sequence[Message], done: asyncio.Future[Any]
    ) -> None:
        results = self._submitter.results(messages, done)
        if self._failing_since is None and not any(results):
            for entry in outbox:
                self._confirm(entry, None)
            return
        at = 0
        for entry in outbox:
            count = len(entry.messages)
            rest, error = unconfirmed(entry.messages, results[at : at + count])
            at += count
            if error is None:
                self._confirm(entry, None)
            elif isinstance(error, PublishRefusedError):
                self._confirm(entry, error)
            else:
                entry.messages = rest
                self._unconfirmed.append(entry)
                self._repeat_later("outputs", error)
        if self._failing_since is not None:
            self._end_repeating()

    def _confirm(self, entry: _Outputs, refused: PublishRefusedError | None) -> None:
        try:
            entry.confirmed(refused)
        except Exception as error:  # only this entry failed
            self._failed(entry.job, error)

    def _answered(
        self, jobs: Sequence[Job], settlements: Sequence[Settlement], done: asyncio.Future[Any]
    ) -> None:
        failure = failure_of(done, "settling", len(jobs))
        results: Sequence[SettleResult] = done.result() if failure is None else ()
        if failure is None and SettleResult.UNKNOWN not in results:
            self._settled(jobs, results)
            if self._failing_since is not None:
                self._end_repeating()
            return
        known: list[Job] = []
        answers: list[SettleResult] = []
        for index, (job, settlement) in enumerate(zip(jobs, settlements, strict=True)):
            result = SettleResult.UNKNOWN if failure else results[index]
            if result is not SettleResult.UNKNOWN:
                known.append(job)
                answers.append(result)
            else:
                job.route.spec.stats.unknown += 1
                if job.after is None or not job.after(result):
                    self._unknown[job] = settlement
        if known:
            self._settled(known, answers)
        if self._unknown:
            self._repeat_later("settlements", failure)

    def _repeat_later(self, what: str, error: Exception | None) -> None:
        if self._failing_since is None:
            self._failing_since = self._loop.time()
            _log.warning(
                "the broker did not confirm, and the settler repeats",
                extra={"call": what, "error": str(error or "the result is unknown")},
            )
        if self._timer is None:
            self._timer = self._loop.call_later(self._backoff.next(), self._repeat)

    def _repeat(self) -> None:
        self._timer = None
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        unknown, self._unknown = self._unknown, {}
        # Repeated entries go before newer ones.
        self._outbox[:0] = unconfirmed
        self._messages[:0] = [message for entry in unconfirmed for message in entry.messages]
        self._jobs += unknown
        self._settlements += unknown.values()
        self.flush()

    def _end_repeating(self) -> None:
        """Stops the timer if no entry must be repeated."""
        if not (self._unconfirmed or self._unknown):
            self._failing_since = None
            self._backoff.reset()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
