"""A simulated process, which owns tasks and callbacks until it ends or crashes."""

from __future__ import annotations

import contextlib
import contextvars
from asyncio import Task
from collections.abc import Iterable
from typing import Any


class Process:
    """One life of a process.

    A task or a callback belongs to the process in whose context it was made. A crash only stops
    the loop from running them: no `finally` runs, as when a process is killed.

    Attributes:
        name: the name of its service with a number, for example `billing-1`.
        life: the number of this start of the process, from 1.
        alive: whether its callbacks still run.
        resumes: the time until which the process is frozen.
        stood_still_at: the time at which the last freeze began.
    """

    def __init__(self, name: str, life: int) -> None:
        self.name = name
        self.life = life
        self.alive = True
        self.resumes = 0.0
        self.stood_still_at = 0.0
        #: References, because the garbage collector would otherwise close the coroutines.
        self.tasks: list[Task[Any]] = []

    def __repr__(self) -> str:
        return f"{self.name}.{self.life}"

    def stand_still(self, now: float, seconds: float) -> None:
        """Freezes the process for some seconds."""
        if self.resumes <= now:
            self.stood_still_at = now
        self.resumes = max(self.resumes, now + seconds)

    def take_tasks(self) -> Iterable[Task[Any]]:
        """Returns the tasks that the process left, and forgets them."""
        tasks, self.tasks = self.tasks, []
        return tasks


def discard(tasks: Iterable[Task[Any]]) -> None:
    """Closes suspended and unstarted tasks, so that they cannot change the simulation any more."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be
        if not task.done() and (coroutine := task.get_coro()) is not None:
            with contextlib.suppress(BaseException):  # a `finally` block may await
                coroutine.close()


#: The process that owns the running code; None outside of processes.
current: contextvars.ContextVar[Process | None] = contextvars.ContextVar(
    "protoflow_simulated_process", default=None
)
