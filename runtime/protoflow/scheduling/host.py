"""What the components of an engine need of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.job import Job


class Host(Protocol):
    """The engine of a subscription, as outcomes are applied in it."""

    def run_again(self, job: Job) -> None:
        """Runs a job whose wait is over; it has kept its turn."""

    def run_singly(self, jobs: Sequence[Job]) -> None:
        """Runs the jobs of a batch again, each by itself; they have their turns."""

    def end_turn(self, job: Job) -> None:
        """Lets the next job of the lane start."""

    def settled_with(self, others: Sequence[Job]) -> None:
        """Accounts for jobs that were settled together with another one."""

    def pause_for(self, reason: str, paused: bool) -> None:
        """Starts no run, and turns readiness red; or ends that."""

    def mark_unready(self, reason: str, detail: str | None) -> None:
        """Turns readiness red; None ends that."""


class SuspectsHost(Protocol):
    """The scheduler, as suspects need it."""

    def paused(self) -> bool:
        """Whether nothing may start for another reason."""
        ...

    def job_alone(self, delivery: Delivery, /) -> Job | None:
        """A job for a delivery of the solo queue; None: not routed, and settled."""
        ...

    def settled_elsewhere(self, job: Job, /) -> None:
        """Accounts for a job whose delivery the transport has settled itself."""

    def mark_unready(self, reason: str, detail: str | None, /) -> None:
        """Turns readiness red; None ends that."""

    def settle_again(self) -> None:
        """Lets the settlements of the last run go out."""

    def give_up(self, job: Job, outcome: DeadLetter, then: Callable[[], None], /) -> None:
        """Dead-letters the job without a run; calls `then` when it is settled."""

    async def run_alone(self, job: Job) -> None:
        """Runs the job; its settlement waits until `settle_again`."""
