"""Suspects: messages that may kill the process. They run alone, with a durable start mark.

A broker's count of hand-outs, or starts without progress, only makes a message a suspect. The proof
is a start mark. It is written before the message runs alone in the process, and cleared at any end
while the process lives. If two marks without an end are found, the message is dead-lettered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.gate import SoloGate
from protoflow.scheduling.host import SuspectsHost
from protoflow.scheduling.job import Job
from protoflow.scheduling.start_marks import NoMarks
from protoflow.transport.interface import Isolation
from protoflow.transport.kit.backoff import Backoff

_log = logging.getLogger("protoflow.scheduler")

#: This many start marks without an end prove that a message kills the process.
PROOF = 2
#: Waits before a suspect is tried again when the process did not become quiet, or its mark could
#: not be written, in seconds.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
#: Waits before a mark is cleared again, in seconds.
_FIRST_CLEARING_WAIT = 0.1
_LONGEST_CLEARING_WAIT = 5.0
#: If marks do not survive, a suspect waits longer with every hand-out, at most this long.
_LONGEST_UNPROVED_WAIT = 300.0
#: Seconds that clearing a mark gets at least at the end.
_LEAST = 0.1
_UNPROVED = "suspects that cannot be proved"
_UNCLEARED = "a start mark cannot be cleared"


class RedeliveryLimit(DeadLetter):
    """The message is given up because it kills the process."""

    category = "redelivery limit"


class Suspects:
    """Runs the suspects of one subscription, in the order of their arrival.

    Args:
        name: the subscription, for logs.
        host: runs them.
        gate: the solo gate of the process.
        isolation: keeps start marks; None if marks do not survive.
        patience: seconds that the process gets to become quiet.
    """

    def __init__(
        self, name: str, host: SuspectsHost, gate: SoloGate, isolation: Isolation | None,
        patience: float,
    ) -> None:  # fmt: skip
        self._name = name
        self._host = host
        self._gate = gate
        self._marks: Isolation = isolation or NoMarks()
        self._proves = isolation is not None
        self._patience = patience
        self._waiting: deque[Job] = deque()
        #: Suspects that wait, because the transport cannot prove process killers.
        self._unproved: dict[Job, asyncio.TimerHandle] = {}
        self._ask = False
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        #: The suspect that has the turn, and whether its run has begun.
        self._current: Job | None = None
        self._begun = False
        #: Suspects whose mark may exist although writing it failed.
        self._doubtful: set[Job] = set()
        self._stopped = False
        self._clearing: dict[asyncio.Task[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unproved) + self._busy

    def put(self, job: Job) -> None:
        """Adds a job that has its turn and may kill the process."""
        if self._proves:
            self._put(job)
            return
        beyond = job.delivery.deliveries - job.route.suspect_at
        wait = min(_LONGEST_UNPROVED_WAIT, 2.0 ** max(0, min(beyond, 16)))
        loop = asyncio.get_running_loop()
        self._unproved[job] = loop.call_later(wait, self._unproved_due, job)
        self._report_unproved()

    def ask(self) -> None:
        """Notes that the solo queue holds messages."""
        self._ask = True
        self._start()

    def take(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Removes and returns jobs that have not started."""
        taken = [job for job in self._waiting if wanted(job)]
        for job in taken:
            self._waiting.remove(job)
        for job in [job for job in self._unproved if wanted(job)]:
            self._unproved.pop(job).cancel()
            taken.append(job)
        self._doubtful.difference_update(taken)
        self._report_unproved()
        return taken

    def lose(self, wanted: Callable[[Job], bool], *, begun: bool = True) -> None:
        """Handles the loss of the suspect that has the turn: it does not start, and clearing its
        mark is not repeated without limit. With `begun`, this also applies after its run has
        begun."""
        job = self._current
        if job is not None and (begun or not self._begun) and wanted(job):
            job.lost = True

    def close(self) -> None:
        """Starts no more runs; running ones continue."""
        self._stopped = True

    async def stop(self, seconds: float) -> None:
        """Starts no more runs. The caller has cancelled the running one. Its mark is cleared even
        if a thread holds it, because the process ends normally."""
        self._stopped = True
        task = self._task
        if task is not None and not task.done():
            if not self._busy:
                task.cancel()
            await asyncio.wait([task], timeout=seconds / 2)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_LEAST)
        if self._clearing:
            await asyncio.wait(self._clearing, timeout=max(_LEAST, seconds / 2))
            for clearing in tuple(self._clearing):
                clearing.cancel()

    def _put(self, job: Job) -> None:
        self._waiting.append(job)
        self._start()

    def _start(self) -> None:
        if not self._stopped and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while (self._waiting or self._ask) and not self._stopped:
            # Do not close the process for a job that may not start anyway.
            if not self._host.paused() and await self._alone():
                backoff.reset()
            elif not self._stopped:
                await asyncio.sleep(backoff.next())

    async def _alone(self) -> bool:
        async with self._gate.alone(self._patience) as quiet:
            self._busy = quiet = quiet and not self._host.paused()
            try:
                return quiet and await self._next()
            finally:
                self._busy = self._begun = False
                self._current = None

    async def _next(self) -> bool:
        """Runs one suspect within the gate; False if none could be found or run now."""
        job = self._current = self._waiting.popleft() if self._waiting else None
        asked, self._ask = self._ask, self._ask and job is not None
        try:
            if job in self._doubtful:
                await self._marks.clear(job.delivery)
                self._doubtful.discard(job)
            found = await self._marks.isolate(job.delivery if job else None)
        except asyncio.CancelledError:
            if job is not None:
                self._waiting.appendleft(job)  # the job will be given back
            raise
        except Exception as error:  # whatever the error is, the next suspect must get its turn
            self._ask = self._ask or asked
            self._not_now(job, error)
            return False
        if found is None or job is None or found[0] is not job.delivery:
            job = self._moved(job, found)
            if job is None:
                return True
        marks = 0 if found is None else found[1]
        if job.lost:
            self._host.settled_elsewhere(job)
            return True
        if marks >= PROOF:
            text = f"the process died {marks} times while this message ran alone"
            self._host.give_up(job, RedeliveryLimit(text), lambda: self._clear_later(job))
            return True
        return await self._run_marked(job)

    def _moved(self, job: Job | None, found: tuple[Delivery, int] | None) -> Job | None:
        """The suspect was moved to the solo queue: returns a job for that queue's first message."""
        if job is not None:
            self._host.settled_elsewhere(job)
            self._ask = True
        if found is None:
            return None
        self._ask = True
        first = self._host.job_alone(found[0])
        if first is not None:
            self._current = first
        return first

    async def _run_marked(self, job: Job) -> bool:
        """Writes the mark and runs the job; False if this must be tried again."""
        try:
            await self._marks.mark(job.delivery)
        except asyncio.CancelledError:
            self._waiting.appendleft(job)
            self._clear_later(job)  # whether the mark was written or not, the process ends normally
            raise
        except Exception as error:
            self._doubtful.add(job)
            self._not_now(job, error)
            return False
        if job.lost:
            await self._clear(job)
            self._host.settled_elsewhere(job)
            return True
        if self._stopped:
            await self._clear(job)
            self._waiting.appendleft(job)
            return False
        await self._run(job)
        return True

    def _not_now(self, job: Job | None, error: Exception) -> None:
        _log.warning(
            "the start mark of a suspect was not written",
            extra={"subscription": self._name, "error": str(error)},
        )
        if job is None:
            return
        if job.lost:
            self._doubtful.discard(job)
            self._host.settled_elsewhere(job)
        else:
            self._waiting.appendleft(job)

    async def _run(self, job: Job) -> None:
        self._begun = True
        cleared = False
        try:
            await self._host.run_alone(job)
            await self._clear(job)
            cleared = True
        finally:
            if not cleared:
                self._clear_later(job)  # the process ends normally, possibly before the run does
            self._host.settle_again()

    async def _clear(self, job: Job) -> None:
        """Clears the mark, and repeats this until it succeeds.

        A mark that stays would make a harmless message look like a process killer. Until then the
        process is closed, and readiness reports the reason.
        """
        backoff = Backoff(_FIRST_CLEARING_WAIT, _LONGEST_CLEARING_WAIT)
        try:
            while True:
                try:
                    return await self._marks.clear(job.delivery)
                except Exception as error:
                    _log.warning(
                        "a start mark was not cleared",
                        extra={"subscription": self._name, "error": str(error)},
                    )
                    self._host.mark_unready(_UNCLEARED, f"{_UNCLEARED}: {error}")
                if job.lost:
                    return None
                await asyncio.sleep(backoff.next())
        finally:
            self._host.mark_unready(_UNCLEARED, None)

    def _clear_later(self, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._clear(job))
        self._clearing[task] = None
        task.add_done_callback(self._clearing.pop)

    def _unproved_due(self, job: Job) -> None:
        del self._unproved[job]
        self._report_unproved()
        self._put(job)

    def _report_unproved(self) -> None:
        if not self._proves:
            count = len(self._unproved)
            self._host.mark_unready(_UNPROVED, f"{_UNPROVED}: {count}" if count else None)
