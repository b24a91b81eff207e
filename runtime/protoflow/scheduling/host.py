"""What applying outcomes needs of the subscription's engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
