"""The end of a subscription: handlers finish, finished work is settled, the rest returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.workers import Workers

_log = logging.getLogger("protoflow.scheduler")

#: This share of the shutdown time, at most this many seconds, is kept for settlements.
_SETTLING_SHARE = 0.2
_MOST_SETTLING = 3.0
#: Cancelled runs get at most this many seconds, because a thread may never end.
_MOST_CANCELLING = 1.0
#: Seconds that clearing a suspect's mark gets at least: a mark that stays would blame it.
_MARKS = 0.2
#: Seconds that the broker gets at least to answer.
_LEAST = 0.05


class Drain:
    """Drains one subscription after it has stopped receiving.

    Args:
        name: the subscription, for logs.
        unstarted: removes jobs that have not started.
    """

    def __init__(
        self,
        name: str,
        workers: Workers,
        settler: Settler,
        applier: OutcomeApplier,
        suspects: Suspects,
        unstarted: Callable[[Callable[[Job], bool]], list[Job]],
    ) -> None:
        self._name = name
        self._workers = workers
        self._settler = settler
        self._applier = applier
        self._suspects = suspects
        self._unstarted = unstarted

    async def drain(self, seconds: float) -> None:
        """Lets handlers finish and settles their messages, within this many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._suspects.close()
        self._release(self._unstarted(_every))
        self._settler.flush()
        handling = seconds - min(_MOST_SETTLING, seconds * _SETTLING_SHARE)
        if not await self._workers.quiet(_every, handling):
            _log.warning(
                "handlers still ran at the end of the drain, and their messages were given back",
                extra={"subscription": self._name, "seconds": handling},
            )
        for job in await self._workers.stop(
            min(_MOST_CANCELLING, max(_LEAST, (deadline - loop.time()) / 2))
        ):
            # a thread holds the message: it stays unsettled, and the broker redelivers it
            job.lost = True
        await self._suspects.stop(max(_MARKS, (deadline - loop.time()) / 2))
        await self._applier.dead_letters.finished(max(0.0, deadline - loop.time()) / 2)
        self._release(self._unstarted(_every) + self._applier.dead_letters.take(_every))
        if await self._settled_within((deadline - loop.time()) / 2):
            return
        # Unsettled messages are given back: they will be handled again.
        self._release(self._unstarted(_every) + self._applier.take_published(_every))
        if not await self._given_back_within(deadline - loop.time()):
            _log.warning(
                "the broker did not answer, and redelivers unsettled messages",
                extra={"subscription": self._name},
            )

    async def _settled_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(_LEAST, seconds)):
                await self._settler.drained()
                # Refused outputs have caused retries and dead letters, which are given back, too.
                self._release(self._unstarted(_every) + self._applier.dead_letters.take(_every))
                await self._settler.drained()
        except TimeoutError:
            return False
        return True

    async def _given_back_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(_LEAST, seconds)):
                await self._settler.settlements_drained()
        except TimeoutError:
            return False
        return True

    def _release(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._applier.release(job)


def _every(_job: Job) -> bool:
    return True
