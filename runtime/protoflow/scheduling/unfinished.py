"""Unfinished jobs: gives back those that are held, and drops those that are lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.router import Router
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.turns import Turns
from protoflow.scheduling.workers import Workers


class Unfinished:
    """Removes and ends the unfinished jobs of one subscription."""

    def __init__(
        self, router: Router, lanes: Lanes, workers: Workers, applier: OutcomeApplier,
        suspects: Suspects, turns: Turns, in_flight: InFlight,
    ) -> None:  # fmt: skip
        self._router = router
        self._lanes = lanes
        self._workers = workers
        self._applier = applier
        self._suspects = suspects
        self._turns = turns
        self._in_flight = in_flight

    def take_unstarted(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Removes and returns jobs that do not run: ready, gathered, waiting or suspected."""
        jobs = self._workers.take(wanted)
        for route in self._router.all:
            if route.gatherer is not None:
                gathered = route.gatherer.take()
                jobs += [job for job in gathered if wanted(job)]
                for job in gathered:
                    if not wanted(job):
                        route.gatherer.add(job)
        jobs += self._applier.take_waiting(wanted) + self._suspects.take(wanted)
        return jobs + self._lanes.drop(wanted)

    def interrupt(self, wanted: Callable[[Job], bool]) -> None:
        """Cancels the runs of lost jobs."""
        for job in self._workers.interrupt(wanted):
            job.lost = True

    def end(self, jobs: Sequence[Job], lost: Callable[[Job], bool]) -> None:
        """Drops lost jobs; the other jobs of their batches are given back."""
        for job in jobs:
            if lost(job):
                self.drop(job)
            else:
                self.give_back((job,))

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Gives back held jobs without counting a failed run, and drops lost ones."""
        for job in jobs:
            if job.lost:
                self.drop(job)
            else:
                self._applier.forget(job)
                self._applier.release(job)
                if job.lane is not None:
                    self._turns.end(job)

    def drop(self, job: Job) -> None:
        """Ends a job without settling it."""
        job.lost = True
        self._applier.forget(job)
        if job.lane is not None:
            self._turns.end(job)
        self._in_flight.left(1, job.delivery.size)
