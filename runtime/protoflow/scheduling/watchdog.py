"""The stall watchdog, which turns readiness red if available work does not move.

An idle subscription is not stalled. A subscription is stalled if work is available to it and none
of these explains the wait: a running handler, a pending timer of a lane, a gate that is closed for
a named reason, or a missing answer of the broker. Only the wait for the broker has a time limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from protoflow.counted import counted
from protoflow.scheduling.job import Job
from protoflow.scheduling.workers import jobs_of

_log = logging.getLogger("protoflow.scheduler")

#: Seconds between two checks.
TICK = 1.0
#: Seconds after which an output or a settlement without an answer turns readiness red.
UNCONFIRMED = 10.0
#: The name of this readiness reason.
STALLED = "stalled"
_BROKER = "unconfirmed"
#: A run is logged if it takes this many times its handler's p99, and this many seconds.
_LONG = 10.0
_LEAST_LONG = 30.0


class Watched(Protocol):
    """A subscription, as the watchdog sees it."""

    name: str

    def moved(self) -> int:
        """Returns a number that grows whenever a message is received or settled."""
        ...

    def waits_for(self) -> str | None:
        """Returns the reason why no message is handled; None if there is no reason."""
        ...

    def unsettled(self) -> int:
        """Returns the number of messages that are received and not settled."""
        ...

    async def available(self) -> int | None:
        """Returns how many messages the broker could deliver to this member; None if unknown."""
        ...

    def unconfirmed(self, patience: float) -> str | None:
        """Describes an answer that the broker has owed for too long; None if there is none."""
        ...

    def running_works(self) -> list[Job | list[Job]]:
        """Returns the work that is running."""
        ...


class Watchdog:
    """Checks one subscription every second.

    Args:
        watched: the subscription.
        mark_unready: turns readiness red for a reason; None ends that.
        stall_after: seconds without movement after which work that is available is stalled.
        p99: the 99th percentile of the run time of a handler in seconds; None if unknown.
    """

    def __init__(
        self,
        watched: Watched,
        mark_unready: Callable[[str, str | None], None],
        stall_after: float,
        p99: Callable[[Job], float | None],
        still: Callable[[], None] | None = None,
        lease: float = 0.0,
    ) -> None:
        self._still = still
        self._lease = lease
        self._watched = watched
        self._mark_unready = mark_unready
        self._stall_after = stall_after
        self._p99 = p99
        self._task: asyncio.Task[None] | None = None
        self._moved = -1
        self._since = 0.0
        self._runs: dict[int, float] = {}
        #: The time of the last check, by the loop's clock; see `stood_still`.
        self.beat = asyncio.get_running_loop().time()

    def start(self) -> None:
        """Starts checking."""
        loop = asyncio.get_running_loop()
        self._since = self.beat = loop.time()
        self._task = loop.create_task(self._watch())

    def stop(self) -> None:
        """Ends `start`."""
        if self._task is not None:
            self._task.cancel()

    def stood_still(self, seconds: float) -> bool:
        """Returns whether the event loop was blocked for longer than this.

        The process was frozen, or a handler blocked it. Leases may have ended without notice.
        """
        return asyncio.get_running_loop().time() - self.beat > seconds

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(TICK)
            self.beat = loop.time()
            # The first to run after a standstill, this check or a worker, detects it.
            if self._still is not None and self.beat - before > self._lease:
                self._still()
            try:
                await self._check(self.beat)
            except Exception as error:  # a failed check must not end the watchdog
                _log.debug(
                    "the watchdog failed",
                    extra={"subscription": self._watched.name, "error": repr(error)},
                )

    async def _check(self, now: float) -> None:
        watched = self._watched
        self._mark_unready(_BROKER, watched.unconfirmed(UNCONFIRMED))
        self._check_runs(now)
        moved = watched.moved()
        if moved != self._moved or watched.waits_for() is not None:
            self._moved = moved
            self._since = now
            self._mark_unready(STALLED, None)
            return
        idle = now - self._since
        if idle < self._stall_after:
            return
        waiting = watched.unsettled() or await watched.available()
        if watched.moved() != moved or not waiting:
            if not waiting:
                self._since = now
                self._mark_unready(STALLED, None)
            return
        self._mark_unready(
            STALLED,
            f"stalled: {counted(waiting, 'message')} waiting, none handled for {idle:.0f} s",
        )

    def _check_runs(self, now: float) -> None:
        """Warns once about each run that takes far longer than usual for its handler."""
        runs: dict[int, float] = {}
        for work in self._watched.running_works():
            job = jobs_of(work)[0]
            began = self._runs.get(id(job), now)
            if began > 0 and now - began >= _LEAST_LONG:
                usual = self._p99(job)
                if usual is not None and now - began > _LONG * usual:
                    _log.warning(
                        "a run took ten times as long as 99 of 100 runs",
                        extra={
                            "handler": job.route.spec.name,
                            "seconds": round(now - began),
                            "usual_seconds": float(f"{usual:.3g}"),
                        },
                    )
                    began = -1.0
            runs[id(job)] = began
        self._runs = runs
