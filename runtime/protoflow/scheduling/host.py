"""The interface of the engine that its components use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.job import Job


class Host(Protocol):
    """The engine of a subscription, as its components see it."""

    def run_again(self, job: Job, /) -> None:
        """Runs a job again whose wait has ended, and which has kept its turn."""

    def run_singly(self, jobs: Sequence[Job]) -> None:
        """Runs each job of a batch again by itself; the jobs have their turns already."""

    def end_turn(self, job: Job) -> None:
        """Lets the next job of the lane start."""

    def settled_with(self, others: Sequence[Job]) -> None:
        """Accounts for jobs that were settled together with another one."""

    def pause_for(self, reason: str, paused: bool) -> None:
        """Starts no run and turns readiness red for a reason; False ends this."""

    def mark_unready(self, reason: str, detail: str | None) -> None:
        """Turns readiness red for a reason; None ends this."""


class SuspectsHost(Protocol):
    """The part of the scheduler that suspects use."""

    def paused(self) -> bool:
        """Whether another reason keeps runs from starting."""
        ...

    def job_alone(self, delivery: Delivery, /) -> Job | None:
        """Returns a job for a solo queue's delivery; None if it was settled without a route."""
        ...

    def settled_elsewhere(self, job: Job, /) -> None:
        """Accounts for a job whose delivery the transport itself has settled."""

    def mark_unready(self, reason: str, detail: str | None, /) -> None:
        """Turns readiness red for a reason; None ends this."""

    def settle_again(self) -> None:
        """Sends the settlements of the last run."""

    def give_up(self, job: Job, outcome: DeadLetter, then: Callable[[], None], /) -> None:
        """Dead-letters the job without a run; calls `then` when it is settled."""

    async def run_alone(self, job: Job) -> None:
        """Runs the job; its settlement waits until `settle_again`."""
