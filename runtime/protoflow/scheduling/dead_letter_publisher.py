"""Publishes dead letters until the broker confirms; then the message is settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from protoflow.codecs.printable import printable
from protoflow.error_codes import TOO_LARGE
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.hop_state import smallest_dead_letter, stub_of
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Settler
from protoflow.transport.kit.backoff import Backoff

_log = logging.getLogger("protoflow.handler")

#: Waits between attempts to publish a dead letter, in seconds.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
_UNPUBLISHED = "dead letters cannot be published"


class DeadLetterPublisher:
    """Publishes the dead letters of one subscription; pauses it while publishing fails.

    Args:
        host: the engine.
        submitter: publishes.
        settler: settles the dead-lettered messages.
    """

    def __init__(self, host: Host, submitter: Submitter, settler: Settler) -> None:
        self._host = host
        self._submitter = submitter
        self._settler = settler
        self._loop = asyncio.get_running_loop()
        self._publishing: dict[asyncio.Task[None], Job] = {}
        #: The number of dead letters that failed and are published again.
        self._failing = 0

    def publish(
        self, job: Job, dead_letter: Message, on_settled: Callable[[], None] = lambda: None
    ) -> None:
        """Publishes a dead letter; the job is acknowledged after the confirmation.
        `on_settled` is called when the acknowledgement has an answer."""
        task = self._loop.create_task(self._publish(job, dead_letter, on_settled))
        self._publishing[task] = job
        task.add_done_callback(lambda task: self._publishing.pop(task, None))

    def take(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Removes jobs whose dead letters are not confirmed; publishing them is not repeated."""
        # A finished publication has its settlement in flight, before its callback is called.
        taken = [
            (task, job)
            for task, job in self._publishing.items()
            if unwanted(job) and not task.done()
        ]
        for task, _job in taken:
            task.cancel()
            del self._publishing[task]  # a job is removed only once
        return [job for _task, job in taken]

    @property
    def busy(self) -> bool:
        """Whether a dead letter is still unconfirmed."""
        return bool(self._publishing)

    async def finished(self, seconds: float | None = None) -> None:
        """Waits until every dead letter is confirmed, or until the time is over."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=seconds)

    async def _publish(
        self, job: Job, dead_letter: Message, on_settled: Callable[[], None]
    ) -> None:
        """Publishes until the broker confirms; each refusal makes the dead letter smaller."""
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        spec = job.route.spec
        failing = False
        smaller = [
            stub_of(dead_letter, job.delivery, spec, spec.clock.now()),
            smallest_dead_letter(dead_letter),
        ]
        try:
            while (error := await self._try(job, dead_letter, on_settled)) is not None:
                if isinstance(error, PublishRefusedError) and smaller:
                    dead_letter = smaller.pop()
                    continue
                if not failing:
                    failing = True
                    self._started_to_fail(job, error)
                await asyncio.sleep(backoff.next())
        finally:
            if failing:
                self._failing -= 1
                if not self._failing:
                    self._host.pause_for(_UNPUBLISHED, False)
        spec.stats.dead_lettered += 1
        spec.stats.dead_letters.add(job.delivery.failures, spec.clock.now())
        if spec.journal is not None:
            spec.journal.dead_lettered(job.message, job.delivery.failures, spec.dead_letter_topic)
        if job.lane is not None:
            self._host.end_turn(job)

    def _started_to_fail(self, job: Job, error: Exception) -> None:
        self._failing += 1
        self._host.pause_for(_UNPUBLISHED, True)
        _log.error(
            "a dead letter was not published, and the subscription paused",
            extra={
                "handler": job.route.spec.name,
                "message_id": printable(job.message.id),
                "error": str(error),
            },
        )

    async def _try(
        self, job: Job, dead_letter: Message, on_settled: Callable[[], None]
    ) -> Exception | None:
        """Makes one attempt; None means that the dead letter is confirmed and being settled."""
        try:
            if job.route.spec.capabilities.atomic:
                failure = await self._settle_with(job, dead_letter)
                if failure is None:
                    on_settled()
                return failure
            (error,) = await self._submitter.publish_shielded((dead_letter,))
        except Exception as raised:  # whatever the error is, the message stays unsettled
            return raised
        if error is None:

            def answered(result: SettleResult) -> bool:
                if result is not SettleResult.UNKNOWN:  # the settlement is repeated
                    job.after = None
                    on_settled()
                return False

            job.after = answered
            self._settler.settle(job, Settlement(job.delivery))
        return error

    async def _settle_with(self, job: Job, dead_letter: Message) -> TransportError | None:
        """Publishes the dead letter and acknowledges in one transaction."""
        done: asyncio.Future[SettleResult] = self._loop.create_future()

        def answered(result: SettleResult) -> bool:
            job.after = None
            if not done.done():
                done.set_result(result)
                return result in (SettleResult.REFUSED, SettleResult.UNKNOWN)
            # the task was cancelled because the job was removed; another place accounts for it
            return True

        job.after = answered
        self._settler.settle(job, Settlement(job.delivery, outputs=(dead_letter,)))
        result = await done
        if result is SettleResult.REFUSED:
            return PublishRefusedError(
                "the transport refused the dead letter: it is too large", code=TOO_LARGE
            )
        return PublishError("the transaction failed") if result is SettleResult.UNKNOWN else None
