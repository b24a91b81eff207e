"""Admission: decides whether a job whose turn has come starts, waits or ends."""

from __future__ import annotations

import enum

from protoflow.scheduling.hop_state import wait_of
from protoflow.scheduling.job import Job
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.suspects import Suspects

#: Seconds: a retry that is due sooner than this is treated as due now.
_SOON = 0.001


class Turn(enum.Enum):
    """The decision about a job whose turn has come."""

    #: The job starts.
    BEGINS = 0
    #: The job waits and keeps its turn.
    WAITS = 1
    #: The job is settled without a run.
    ENDS = 2


class Admission:
    """Decides whether a job of a subscription that has its turn may start.

    Args:
        group: the consumer group; retries of this group may not be due yet.
        applier: keeps waiting jobs and settles skipped ones.
        suspects: runs messages that may kill the process.
    """

    def __init__(self, group: str, applier: OutcomeApplier, suspects: Suspects) -> None:
        self._group = group
        self._applier = applier
        self._suspects = suspects

    def turn(self, job: Job) -> Turn:
        """Checks a job whose turn has come; an error fails this job only."""
        try:
            return self._check(job)
        except Exception as error:
            self._applier.failed(job, error)
            return Turn.WAITS  # the turn is kept until the dead letter is confirmed

    def suspected(self, job: Job) -> bool:
        """Whether the job may kill the process; then it runs alone each time."""
        return job.delivery.suspect or job.delivery.deliveries >= job.route.suspect_at

    def _check(self, job: Job) -> Turn:
        job.unchecked = False
        route = job.route
        if job.message.payload is None and not route.registration.tombstones:
            route.spec.stats.tombstones += 1
            self._applier.settle(job)
            return Turn.ENDS
        wait = wait_of(job.delivery, self._group, route.spec.clock.now())
        if wait > _SOON:  # a retry was delivered before it is due, for example by a delay ladder
            self._applier.wait(job, wait)
            return Turn.WAITS
        if self.suspected(job):
            job.single = route.gatherer is not None
            self._suspects.put(job)
            return Turn.WAITS
        return Turn.BEGINS
