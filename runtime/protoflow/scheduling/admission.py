"""The admission of a job that has its turn for the first time: it starts, waits or ends."""

from __future__ import annotations

import enum

from protoflow.scheduling.hop_state import wait_of
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.suspects import Suspects

#: A retry that is due in less is due now, in seconds.
_SOON = 0.001


class Turn(enum.Enum):
    """What a job does that has its turn for the first time."""

    #: It starts.
    BEGINS = 0
    #: It waits, and keeps its turn.
    WAITS = 1
    #: It is settled without a run.
    ENDS = 2


class Admission:
    """Decides whether a job of a subscription that has its turn may start.

    Args:
        group: whose retries are not due yet.
        applier: keeps what waits, and settles what is skipped.
        suspects: runs what may kill the process.
    """

    def __init__(self, group: str, applier: OutcomeApplier, suspects: Suspects) -> None:
        self._group = group
        self._applier = applier
        self._suspects = suspects

    def turn(self, job: Job) -> Turn:
        """Checks a job that has its turn; an error is this job's failure, and no other's."""
        try:
            return self._check(job)
        except Exception as error:
            self._applier.failed(job, error)
            return Turn.WAITS  # until its dead letter is confirmed

    def suspected(self, job: Job) -> bool:
        """Whether the job may kill the process: every run of it is alone."""
        return job.delivery.suspect or job.delivery.deliveries >= job.route.suspect_at

    def _check(self, job: Job) -> Turn:
        job.unchecked = False
        route = job.route
        if job.message.payload is None and not route.registration.tombstones:
            route.spec.stats.tombstones += 1
            self._applier.settle(job)
            return Turn.ENDS
        wait = wait_of(job.delivery, self._group, route.spec.clock.now())
        if wait > _SOON:  # a retry that was delivered before it is due, as from a ladder
            self._applier.wait(job, wait)
            return Turn.WAITS
        if self.suspected(job):
            job.single = route.gatherer is not None
            self._suspects.put(job)
            return Turn.WAITS
        return Turn.BEGINS
