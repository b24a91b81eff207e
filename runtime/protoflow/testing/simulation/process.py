"""A simulated process: what runs in its name, until it ends or crashes."""

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
        name: the name of its service and its number, `billing-1`.
        life: which start of this process it is, from 1.
        alive: whether its callbacks still run.
        resumes: the time before which it stands still.
        stood_still_at: when it began to stand still, for the last time.
    """

    def __init__(self, name: str, life: int) -> None:
        self.name = name
        self.life = life
        self.alive = True
        self.resumes = 0.0
        self.stood_still_at = 0.0
        #: Kept, or the garbage collector would close their coroutines.
        self.tasks: list[Task[Any]] = []

    def __repr__(self) -> str:
        return f"{self.name}.{self.life}"

    def stand_still(self, now: float, seconds: float) -> None:
        """Nothing of it runs for some seconds."""
        if self.resumes <= now:
            self.stood_still_at = now
        self.resumes = max(self.resumes, now + seconds)

    def take_tasks(self) -> Iterable[Task[Any]]:
        """Returns what it left, which is forgotten."""
        tasks, self.tasks = self.tasks, []
        return tasks


def discard(tasks: Iterable[Task[Any]]) -> None:
    """Closes what is suspended, or never began; nothing of it may reach the simulation any more."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be
        if not task.done() and (coroutine := task.get_coro()) is not None:
            with contextlib.suppress(BaseException):  # its `finally` may await
                coroutine.close()


#: The process to which the running code belongs; None is the outside world.
current: contextvars.ContextVar[Process | None] = contextvars.ContextVar(
    "protoflow_simulated_process", default=None
)
