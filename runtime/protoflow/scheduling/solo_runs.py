"""Runs one subscription's suspects alone, for the solo gate."""

from __future__ import annotations

from collections.abc import Callable

from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.gate import SOLO
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.readiness import Readiness
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.workers import Workers


class SoloRuns:
    """One subscription: a member of the solo gate, and the host of its suspects.

    Args:
        workers: run.
        readiness: problems and gates.
        settler: settles only once the start mark is cleared.
        applier: dead-letters messages that are proved to kill the process.
        receive: makes a job of a delivery of the solo queue; None if it was settled.
        drop: ends a job without settling it.
    """

    def __init__(
        self,
        workers: Workers,
        readiness: Readiness,
        settler: Settler,
        applier: OutcomeApplier,
        receive: Callable[[Delivery], Job | None],
        drop: Callable[[Job], None],
    ) -> None:
        self._workers = workers
        self._gates = readiness.gates
        self._settler = settler
        self._applier = applier
        # The members of `Member` and `SuspectsHost`.
        self.close_gate: Callable[[str], None] = self._gates.close
        self.open_gate: Callable[[str], None] = self._gates.open
        self.job_alone = receive
        self.settled_elsewhere = drop
        self.mark_unready: Callable[[str, str | None], None] = readiness.mark_unready
        self.settle_again: Callable[[], None] = settler.resume
        self.give_up: Callable[[Job, DeadLetter, Callable[[], None]], None] = applier.give_up

    async def quiet(self) -> None:
        """Waits until no handler runs and all finished work is settled."""
        dead_letters = self._applier.dead_letters
        while self._workers.running or self._settler.busy or dead_letters.busy:
            await self._workers.quiet(lambda _job: True, None)
            await dead_letters.finished()
            await self._settler.drained()

    def paused(self) -> bool:
        """Whether a gate other than the solo gate is closed; then suspects wait, too."""
        return bool(self._gates.reasons - {SOLO})

    async def run_alone(self, job: Job) -> None:
        """Runs the job; its settlement waits until `settle_again`."""
        self._settler.suspend()
        await self._workers.run_alone([job] if job.route.gatherer is not None else job)
