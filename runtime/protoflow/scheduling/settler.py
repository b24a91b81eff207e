"""Settling: outputs confirmed first, then the settlement, all in batches.

Everything that one turn of the event loop produces goes out together: one `submit` and one
`settle`, so a busy service pays for neither per message.

A batch is not a fate: each entry is answered by itself. Outputs that the broker did not take, and
settlements of which nobody knows, are repeated as they are, the same ids and the same values,
until they are answered or the delivery is held no longer. Only a refusal is an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.scheduling.job import Job
from protoflow.transport.interface import Subscription, Transport

_log = logging.getLogger("protoflow.settler")

#: Waits between repetitions in seconds: doubled from first to last.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

#: What is called when outputs are confirmed (None) or refused for good.
Confirmed = Callable[[PublishRefusedError | None], None]


class _Outputs:
    """The outputs of one job on their way."""

    __slots__ = ("confirmed", "job", "messages")

    def __init__(self, job: Job, messages: Sequence[Message], confirmed: Confirmed) -> None:
        self.job = job
        self.messages = messages
        self.confirmed = confirmed


class Settler:
    """Publishes and settles for one subscription.

    Args:
        transport: publishes outputs.
        subscription: settles.
        settled: called with jobs whose settlements have an answer, which is never UNKNOWN.
        failed: called with a job whose callback raised, and the error.
    """

    def __init__(
        self,
        transport: Transport,
        subscription: Subscription,
        settled: Callable[[Sequence[Job], Sequence[SettleResult]], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self._transport = transport
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
        #: What awaits an answer of the broker, and since when.
        self._pending: dict[asyncio.Future[Any], float] = {}
        #: What is repeated after a wait.
        self._unconfirmed: list[_Outputs] = []
        self._unknown: dict[Job, Settlement] = {}
        self._failing_since: float | None = None
        self._wait = _FIRST_WAIT
        self._timer: asyncio.TimerHandle | None = None

    def settle(self, job: Job, settlement: Settlement) -> None:
        """Settles with the next batch."""
        self._jobs.append(job)
        self._settlements.append(settlement)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def publish(self, job: Job, messages: Sequence[Message], confirmed: Confirmed) -> None:
        """Publishes for a job with the next batch; the order of calls is the order of
        publishing. It is repeated until all are confirmed or one is refused."""
        self._messages.extend(messages)
        self._outbox.append(_Outputs(job, messages, confirmed))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def suspend(self) -> None:
        """Keeps what comes until `resume`."""
        self._suspended = True

    def resume(self) -> None:
        """Ends `suspend`."""
        self._suspended = False
        self.flush()

    def flush(self) -> None:
        """Hands everything to the broker now."""
        self._scheduled = False
        if self._suspended:
            return
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            messages, self._messages = self._messages, []
            try:
                published = self._transport.submit(messages)
            except Exception as error:  # none should, but nothing must hang for it
                published = self._broken(error)
            self._watch(published, lambda done: self._published(outbox, done))
        if self._settlements:
            jobs, self._jobs = self._jobs, []
            settlements, self._settlements = self._settlements, []
            try:
                settled = self._subscription.settle(settlements)
            except Exception as error:
                settled = self._broken(error)
            self._watch(settled, lambda done: self._answered(jobs, settlements, done))

    @property
    def busy(self) -> bool:
        """Whether an answer of the broker is awaited, or something is to be repeated."""
        return bool(
            self._pending or self._outbox or self._settlements or self._unconfirmed or self._unknown
        )

    def problem(self, patience: float) -> str | None:
        """What the broker has not confirmed for longer than `patience` seconds."""
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
        """Repeats nothing more of these jobs: those with outputs that are not confirmed, and
        those with settlements of which nothing is known."""
        outputs = [entry.job for entry in self._unconfirmed if wanted(entry.job)]
        self._unconfirmed = [entry for entry in self._unconfirmed if not wanted(entry.job)]
        settlements = [job for job in self._unknown if wanted(job)]
        for job in settlements:
            del self._unknown[job]
        self._quieter()
        return outputs, settlements

    async def drained(self) -> None:
        """Waits until nothing is on its way, and nothing is to be repeated."""
        while self.busy:
            self.flush()
            if self._pending:
                await asyncio.wait(self._pending)
            elif self._timer is not None or self._suspended:
                await asyncio.sleep(_FIRST_WAIT / 2)
            await asyncio.sleep(0)  # callbacks of what ended may publish or settle

    def _broken(self, error: Exception) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        future.set_exception(error)
        return future

    def _watch(
        self, future: asyncio.Future[Any], ended: Callable[[asyncio.Future[Any]], None]
    ) -> None:
        self._pending[future] = self._loop.time()

        def done(future: asyncio.Future[Any]) -> None:
            del self._pending[future]
            ended(future)

        future.add_done_callback(done)

    def _published(self, outbox: Sequence[_Outputs], done: asyncio.Future[Any]) -> None:
        results, failure = _results(done, "publishing", sum(len(e.messages) for e in outbox))
        at = 0
        for entry in outbox:
            count = len(entry.messages)
            errors = results[at : at + count] if failure is None else [failure] * count
            at += count
            failed = next((index for index, error in enumerate(errors) if error is not None), None)
            if failed is None:
                self._confirm(entry, None)
                continue
            refused = next((e for e in errors if isinstance(e, PublishRefusedError)), None)
            if refused is not None:
                self._confirm(entry, refused)
                continue
            # From the first that failed on: so their order is kept.
            entry.messages = entry.messages[failed:]
            self._unconfirmed.append(entry)
            self._repeat_later("outputs", errors[failed])
        if self._failing_since is not None:
            self._quieter()

    def _confirm(self, entry: _Outputs, refused: PublishRefusedError | None) -> None:
        try:
            entry.confirmed(refused)
        except Exception as error:  # it is this entry's failure, and no other's
            self._failed(entry.job, error)

    def _answered(
        self, jobs: Sequence[Job], settlements: Sequence[Settlement], done: asyncio.Future[Any]
    ) -> None:
        results, failure = _results(done, "settling", len(jobs))
        if failure is None and SettleResult.UNKNOWN not in results:
            self._settled(jobs, results)
            if self._failing_since is not None:
                self._quieter()
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
            _log.warning("%s are repeated: %s", what, error or "their result is unknown")
        if self._timer is None:
            self._timer = self._loop.call_later(self._wait, self._repeat)
            self._wait = min(_LONGEST_WAIT, self._wait * 2)

    def _repeat(self) -> None:
        self._timer = None
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        unknown, self._unknown = self._unknown, {}
        # Before what came meanwhile.
        self._outbox[:0] = unconfirmed
        self._messages[:0] = [message for entry in unconfirmed for message in entry.messages]
        self._jobs += unknown
        self._settlements += unknown.values()
        self.flush()

    def _quieter(self) -> None:
        """Nothing is to be repeated any more, if that is so."""
        if not (self._unconfirmed or self._unknown):
            self._failing_since = None
            self._wait = _FIRST_WAIT
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None


def _results(
    done: asyncio.Future[Any], what: str, count: int
) -> tuple[Sequence[Any], Exception | None]:
    """The results of a batch of so many entries, or why there are none."""
    if done.cancelled():
        return (), PublishError(f"{what} was cancelled: the transport closes")
    error: BaseException | None = done.exception()
    if error is None:
        results = done.result()
        if len(results) == count:
            return results, None
        error = RuntimeError(f"{len(results)} results for {count} entries")
    if not isinstance(error, TransportError):
        _log.error("%s failed: %s: %s", what, type(error).__name__, error)
    failure = PublishError(f"{what} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return (), failure
