"""Long-lived workers that drain what is ready: no task per message."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from protoflow.scheduling.job import Job

#: One job, or the jobs of a batch.
Work: TypeAlias = "Job | list[Job]"

#: A worker lets the loop breathe after so many messages that never made it wait.
_BREATH = 32
#: How long work that runs alone and backwards waits for more of its kind, in seconds.
_LINGER = 0.2


def jobs_of(work: Work) -> Sequence[Job]:
    """The jobs of some work."""
    return work if isinstance(work, list) else (work,)


class _Worker:
    __slots__ = ("interrupted", "task", "work")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.work: Work | None = None
        self.interrupted = False


class Workers:
    """At most `limit` pieces of work at once, in the order of `put`.

    Args:
        limit: how many run at once.
        run: does one piece of work; must not raise but CancelledError.
        crashed: called when a worker died all the same.
        settled: waits until nothing is on its way to the broker; before work that runs alone.
    """

    def __init__(
        self,
        limit: int,
        run: Callable[[Work], Awaitable[None]],
        crashed: Callable[[BaseException], None],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._settled = settled
        self._alone_from = 0.0
        self._limit = limit
        self._run = run
        self._crashed = crashed
        self._ready: deque[Work] = deque()
        #: Makes work ready; `wake` starts it.
        self.put: Callable[[Work], None] = self._ready.append
        self._alone: deque[Work] = deque()
        self._gates: set[str] = set()
        self._closed = False
        self._solo = False
        self._stopped = False
        self._workers: list[_Worker] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._watchers: list[asyncio.Future[None]] = []
        self.running = 0

    def put_alone(self, work: Work, *, backwards: bool = False) -> None:
        """Work that runs with nothing beside it, because it may kill the process.

        Args:
            work: the work.
            backwards: the last comes first, once all that is there has come: what is behind
                a killer in one process is before it in the next.
        """
        if backwards:
            self._alone.appendleft(work)
            self._alone_from = asyncio.get_running_loop().time() + _LINGER
        else:
            self._alone.append(work)
        self._closed = True

    def wake(self) -> None:
        """Starts what is ready, as far as there are workers."""
        wanted = len(self._ready) + len(self._alone)
        while wanted > 0 and self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wanted -= 1
        while wanted > 0 and len(self._workers) < self._limit:
            self._hire()
            wanted -= 1

    def close_gate(self, reason: str) -> None:
        """Starts nothing more until the gate is opened for the same reason."""
        self._gates.add(reason)
        self._closed = True

    def open_gate(self, reason: str) -> None:
        """Ends `close_gate`."""
        self._gates.discard(reason)
        self._closed = bool(self._gates or self._alone or self._solo)
        self.wake()

    def take(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Takes out what has not started."""
        taken: list[Job] = []
        for queue in (self._ready, self._alone):
            for _ in range(len(queue)):
                work = queue.popleft()
                jobs = jobs_of(work)
                gone = [job for job in jobs if unwanted(job)]
                taken += gone
                if not gone:
                    queue.append(work)
                elif rest := [job for job in jobs if job not in gone]:
                    queue.append(rest)
        self._closed = bool(self._gates or self._alone or self._solo)
        return taken

    def interrupt(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Cancels the runs of these jobs, which it gives; their workers go on."""
        interrupted: list[Job] = []
        for worker in self._workers:
            if worker.work is None or worker.task is None:
                continue
            if jobs := [job for job in jobs_of(worker.work) if wanted(job)]:
                interrupted += jobs
                worker.interrupted = True
                worker.task.cancel()
        return interrupted

    def busy(self, wanted: Callable[[Job], bool] = lambda _job: True) -> bool:
        """Whether such a job runs."""
        return any(
            any(wanted(job) for job in jobs_of(worker.work))
            for worker in self._workers
            if worker.work is not None
        )

    async def quiet(self, wanted: Callable[[Job], bool], seconds: float) -> bool:
        """Waits until no such job runs; False if that took longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.busy(wanted):
                    watcher = asyncio.get_running_loop().create_future()
                    self._watchers.append(watcher)
                    await watcher
                return True
        return False

    async def stop(self, patience: float = 1.0) -> list[Job]:
        """Cancels every worker and waits for them, not for long for those held by a thread:
        what these still do."""
        self._stopped = True
        tasks = [worker.task for worker in self._workers if worker.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        left = [worker.work for worker in self._workers if worker.work is not None]
        self._workers.clear()
        return [job for work in left for job in jobs_of(work)]

    def _hire(self) -> None:
        worker = _Worker()
        self._workers.append(worker)
        worker.task = asyncio.get_running_loop().create_task(self._serve(worker))
        worker.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    async def _serve(self, worker: _Worker) -> None:
        while not self._stopped:
            if self._may_start_alone():
                wait = self._alone_from - asyncio.get_running_loop().time()
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                self._solo = True
                try:
                    await self._settled()
                    if self._alone:  # else it was taken out meanwhile
                        self._ready.appendleft(self._alone.popleft())
                        await self._work(worker, 1)
                finally:
                    self._solo = False
                    self._closed = bool(self._gates or self._alone)
                self.wake()
            elif self._ready and not self._closed:
                await self._work(worker, _BREATH)
                if self._ready:
                    await asyncio.sleep(0)
            else:
                await self._rest()

    def _may_start_alone(self) -> bool:
        return bool(
            self._closed and self._alone and not (self._gates or self._solo) and not self.running
        )

    async def _work(self, worker: _Worker, most: int) -> None:
        """Does what is ready, at most so many pieces."""
        ready, run = self._ready, self._run
        for _ in range(most):
            work = worker.work = ready.popleft()
            self.running += 1
            try:
                await run(work)
            except asyncio.CancelledError:
                if not worker.interrupted:
                    raise
            finally:
                worker.work = None
                self.running -= 1
                if self._watchers or worker.interrupted or self._alone:
                    self._look_up(worker)
            if not ready or self._closed or self._stopped:
                return

    def _look_up(self, worker: _Worker) -> None:
        """A piece of work is done: tells who waits for that."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)
        if worker.interrupted and worker.task is not None:
            worker.interrupted = False
            worker.task.uncancel()
        if self._alone and not self.running:
            self.wake()

    async def _rest(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not self._stopped:
                with contextlib.suppress(ValueError):
                    self._idle.remove(waiter)
            raise
