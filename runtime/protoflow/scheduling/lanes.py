"""Lanes: jobs that must be handled in turn, by key or partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence

from protoflow.scheduling.job import Job, Route


class _Lane:
    """The jobs of one lane: those with the turn, and those that wait.

    Only jobs that are collected for one batch have the turn together.
    """

    __slots__ = ("active", "gathering", "waiting")

    def __init__(self, route: Route | None) -> None:
        self.active = 1
        self.gathering = route
        self.waiting: deque[Job] = deque()


class Lanes:
    """Keeps the order of jobs by lane. A lane exists while it has a job."""

    def __init__(self) -> None:
        # Most lanes only ever have one job: those are stored as None.
        self._lanes: dict[Hashable, _Lane | None] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, job: Job) -> bool:
        """Returns whether the job may start; otherwise it waits for the jobs before it."""
        lanes, key = self._lanes, job.lane
        if key not in lanes:
            lanes[key] = _Lane(job.route) if job.route.gatherer else None
            return True
        lane = lanes[key]
        if lane is None:
            lane = lanes[key] = _Lane(None)
        elif lane.gathering is job.route and not lane.waiting and not job.unchecked:
            lane.active += 1
            return True
        lane.waiting.append(job)
        return False

    def close(self, jobs: Iterable[Job]) -> None:
        """Closes a batch: no more jobs may join it."""
        for job in jobs:
            if job.lane is not None and (lane := self._lanes.get(job.lane)) is not None:
                lane.gathering = None

    def leave(self, job: Job) -> Job | None:
        """Ends the job's turn; returns the next job of its lane if that may start now."""
        # only once, because a repeated settlement may be reported lost later
        key, job.lane = job.lane, None
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes.pop(key, None)
            return None
        lane.active -= 1
        if lane.active:
            return None
        if not lane.waiting:
            del self._lanes[key]
            return None
        first = lane.waiting.popleft()
        gathers = first.route.gatherer and not first.single and not first.unchecked
        lane.gathering = first.route if gathers else None
        lane.active = 1
        return first

    def follow(self, job: Job) -> Job | None:
        """Returns the next job of the lane that may join the batch of this job."""
        lane = self._lanes.get(job.lane)
        if lane is None or lane.gathering is None or not lane.waiting:
            return None
        follower = lane.waiting[0]
        if follower.single or follower.unchecked or follower.route is not lane.gathering:
            return None
        lane.active += 1
        return lane.waiting.popleft()

    def take_back(self, jobs: Sequence[Job]) -> None:
        """Takes the turn from these jobs: they wait again, before all others, in order."""
        for job in reversed(jobs):
            lane = self._lanes[job.lane]
            if lane is None:
                lane = self._lanes[job.lane] = _Lane(None)
            lane.active -= 1
            lane.waiting.appendleft(job)

    def drop(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Removes unwanted jobs that wait; they have no turn to end."""
        dropped: list[Job] = []
        for lane in self._lanes.values():
            if lane is not None and lane.waiting:
                dropped += [job for job in lane.waiting if unwanted(job)]
                lane.waiting = deque(job for job in lane.waiting if not unwanted(job))
        for job in dropped:
            job.lane = None
        return dropped
