"""What those who carry out outcomes need of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protoflow.scheduling.job import Job


class Host(Protocol):
    """The scheduler."""

    def again(self, job: Job) -> None:
        """The job's wait is over: it runs again, and has had its turn all the time."""

    def one_by_one(self, jobs: Sequence[Job]) -> None:
        """The jobs of a batch run again, each by itself; they have their turns."""

    def leave(self, job: Job) -> None:
        """The next of the job's lane may start."""

    def settled_with(self, others: Sequence[Job]) -> None:
        """These were settled together with another job."""

    def block(self, reason: str, blocked: bool) -> None:
        """Starts nothing more, and readiness turns red; or ends that."""

    def degrade(self, reason: str, detail: str | None) -> None:
        """Readiness turns red; None ends that."""
