"""The turns of jobs: which job starts, and which is next in its lane."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.scheduling.admission import Admission, Turn
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.workers import Workers


class Turns:
    """Gives the jobs of one subscription to its workers, each lane in turn."""

    def __init__(self, lanes: Lanes, workers: Workers, admission: Admission) -> None:
        self._lanes = lanes
        self._workers = workers
        self._admission = admission

    def begin(self, job: Job) -> None:
        """Makes a job ready, or adds it to the batch being gathered."""
        gatherer = job.route.gatherer
        if gatherer is None:
            self._workers.put(job)
        elif job.single:
            self._workers.put([job])
        else:
            gatherer.add(job)

    def begin_checked(self, job: Job) -> None:
        """Checks a job whose turn has come, and makes it ready if it may start."""
        turn = self._admission.turn(job)
        if turn is Turn.BEGINS:
            self.begin(job)
        elif turn is Turn.ENDS and job.lane is not None:
            self.end(job)

    def run_again(self, job: Job) -> None:
        """Makes a job ready after its wait."""
        if not self._admission.suspected(job) or self._admission.turn(job) is Turn.BEGINS:
            self.begin(job)
            self._workers.wake()

    def run_singly(self, jobs: Sequence[Job]) -> None:
        """Makes each job of a batch ready by itself; the jobs have their turns already."""
        lanes: set[object] = set()
        back: list[Job] = []
        for job in jobs:
            job.single = True
            if job.lane is not None and job.lane in lanes:
                back.append(job)
            else:
                lanes.add(job.lane)
                self.begin(job)
        self._lanes.take_back(back)
        self._workers.wake()

    def put_batch(self, jobs: list[Job]) -> None:
        """Makes a gathered batch ready; later jobs of its lanes wait for it."""
        self._lanes.close(jobs)
        self._workers.put(jobs)
        self._workers.wake()

    def end(self, job: Job) -> None:
        """Ends the turn of a job, and starts the next of its lane."""
        if self.pass_on(job):
            self._workers.wake()

    def pass_on(self, job: Job) -> bool:
        """Makes the next of the job's lane ready; returns whether there is one."""
        follower = self._lanes.leave(job)
        while follower is not None and follower.unchecked:
            turn = self._admission.turn(follower)
            if turn is Turn.WAITS:
                return False
            if turn is Turn.BEGINS:
                break
            follower = self._lanes.leave(follower)
        if follower is None:
            return False
        while follower is not None:
            self.begin(follower)
            follower = self._lanes.follow(follower) if follower.route.gatherer else None
        return True
