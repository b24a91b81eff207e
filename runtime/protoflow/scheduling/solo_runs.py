"""Runs alone: what the solo gate and the suspects of a process do with one subscription."""

from __future__ import annotations

from collections.abc import Callable

from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.gate import SOLO
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import Carrier
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.workers import Workers


class SoloRuns:
    """One subscription: a member of the solo gate, and the host of its suspects.

    Args:
        workers: run.
        settler: waits with the settlement until the start mark is cleared.
        carrier: dead-letters what is proved.
        receive: makes a job of a delivery of the solo queue; None: it is settled.
        forget: ends a job without settling it.
        degrade: turns readiness red for a reason; None ends that.
    """

    def __init__(
        self,
        workers: Workers,
        settler: Settler,
        carrier: Carrier,
        receive: Callable[[Delivery], Job | None],
        forget: Callable[[Job], None],
        degrade: Callable[[str, str | None], None],
    ) -> None:
        self._workers = workers
        self._settler = settler
        self._carrier = carrier
        #: See `SuspectsHost`.
        self.job_alone = receive
        self.settled_elsewhere = forget
        self.degrade = degrade

    def close_gate(self, reason: str) -> None:
        """Starts nothing more."""
        self._workers.close_gate(reason)

    def open_gate(self, reason: str) -> None:
        """Ends `close_gate`."""
        self._workers.open_gate(reason)

    async def quiet(self) -> None:
        """Waits until nothing runs and everything that is finished is settled."""
        burials = self._carrier.burials
        while self._workers.running or self._settler.busy or burials.busy:
            await self._workers.quiet(lambda _job: True, None)
            await burials.finished()
            await self._settler.drained()

    def held(self) -> bool:
        """Whether a gate other than the solo gate is closed: suspects wait, too."""
        return bool(self._workers.gates - {SOLO})

    async def run_alone(self, job: Job) -> None:
        """Runs the job; its settlement waits until `settle_again`."""
        self._settler.suspend()
        await self._workers.run_alone([job] if job.route.gatherer is not None else job)

    def settle_again(self) -> None:
        """Lets the settlements of the last run go out."""
        self._settler.resume()

    def give_up(self, job: Job, outcome: DeadLetter, then: Callable[[], None]) -> None:
        """Dead-letters the job without a run."""
        self._carrier.give_up(job, outcome, then)
