"""Dead letters on their way: published for as long as it takes, then the message is settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from protoflow.codecs.printable import printable
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.scheduling.dead_letters import least_letter, stub_of
from protoflow.scheduling.host import Host
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Settler
from protoflow.transport.interface import Transport

_log = logging.getLogger("protoflow.handler")

#: Waits between attempts to publish a dead letter, in seconds: doubled from first to last.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_GATE = "dead letters cannot be published"


class Burials:
    """The burials of one subscription. While one fails, the subscription starts nothing more."""

    def __init__(self, host: Host, transport: Transport, settler: Settler) -> None:
        self._host = host
        self._transport = transport
        self._settler = settler
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], Job] = {}
        #: How many have failed and are tried again.
        self._stuck = 0

    def begin(self, job: Job, letter: Message, then: Callable[[], None] = lambda: None) -> None:
        """Publishes the letter; the job is acknowledged when that is confirmed, never before.
        `then` is called when the acknowledgement has an answer."""
        burial = self._loop.create_task(self._bury(job, letter, then))
        self._running[burial] = job
        burial.add_done_callback(lambda task: self._running.pop(task, None))

    def take(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out jobs whose dead letter is not confirmed: it is not published any more."""
        # One that is done has its settlement on the way, though its callback was not called yet.
        taken = [
            (burial, job)
            for burial, job in self._running.items()
            if unwanted(job) and not burial.done()
        ]
        for burial, _job in taken:
            burial.cancel()
            del self._running[burial]  # it is taken out once
        return [job for _burial, job in taken]

    @property
    def busy(self) -> bool:
        """Whether a dead letter is on its way."""
        return bool(self._running)

    async def finished(self, seconds: float | None = None) -> None:
        """Waits until every dead letter is confirmed, at most so long."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def _bury(self, job: Job, letter: Message, then: Callable[[], None]) -> None:
        """Publishes the letter, for as long as it takes; each refusal makes it smaller."""
        pause = _FIRST_PAUSE
        spec = job.route.spec
        blocked = False
        smaller = [stub_of(letter, job.delivery, spec, spec.clock.now()), least_letter(letter)]
        try:
            while (error := await self._try(job, letter, then)) is not None:
                if isinstance(error, PublishRefusedError) and smaller:
                    letter = smaller.pop()
                    continue
                if not blocked:
                    blocked = True
                    self._stuck += 1
                    self._host.block(_GATE, True)
                    _log.error(
                        "%s: a dead letter of %s is not published, the subscription pauses: %s",
                        spec.name, printable(job.message.id), error,
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

    async def _try(self, job: Job, letter: Message, then: Callable[[], None]) -> Exception | None:
        """One attempt: None when the letter is safe and the job's settlement is on its way."""
        try:
            if job.route.spec.capabilities.atomic:
                failure = await self._settle_with(job, letter)
                if failure is None:
                    then()
                return failure
            published = self._transport.submit((letter,))
            # Not awaited itself: a burial that is called off must not cancel it, and one that
            # the transport cancels is no end of the burial.
            await asyncio.wait([published])
            if published.cancelled():
                return PublishError("publishing was cancelled: the transport closes")
            errors = published.result()
        except Exception as error:  # whatever it is, the message stays unsettled
            return error
        if errors[0] is None:

            def answered(result: SettleResult) -> bool:
                if result is not SettleResult.UNKNOWN:  # that is repeated
                    job.after = None
                    then()
                return False

            job.after = answered
            self._settler.settle(job, Settlement(job.delivery))
        return errors[0]

    async def _settle_with(self, job: Job, letter: Message) -> PublishError | None:
        """The letter and the acknowledgement in one transaction."""
        done: asyncio.Future[SettleResult] = self._loop.create_future()

        def answered(result: SettleResult) -> bool:
            job.after = None
            if not done.done():
                done.set_result(result)
                return result in (SettleResult.REFUSED, SettleResult.UNKNOWN)
            return True  # called off meanwhile: it was taken out, and is accounted for

        job.after = answered
        self._settler.settle(job, Settlement(job.delivery, outputs=(letter,)))
        result = await done
        if result is SettleResult.REFUSED:
            return PublishRefusedError("the transport refused the letter: it is too large")
        return PublishError("the transaction failed") if result is SettleResult.UNKNOWN else None
