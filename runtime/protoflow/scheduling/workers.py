"""Long-lived workers that run ready work, so that no task is made per message."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from protoflow.scheduling.job import Job
from protoflow.scheduling.readiness import Gates

#: One job, or the jobs of a batch.
Work: TypeAlias = "Job | list[Job]"

#: A worker yields to the event loop after this many messages that caused no wait.
_MOST_IN_A_ROW = 32


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

    Every worker starts in the context (`contextvars`) that was current when this object was made. A
    worker is replaced if a piece of work changed its context, so no value passes from one message
    to the next.

    Args:
        limit: how many run at once.
        run: does one piece of work; it may raise CancelledError only.
        crashed: called if a worker died anyway.
        gates: no work starts while a gate is closed.
        stale: whether ready work must not start because the process stood still for longer than a
            lease; it is called before each start. None if the order does not depend on it.
        give_up: called if it is stale; removes work that has not started.
    """

    def __init__(
        self,
        limit: int,
        run: Callable[[Work], Awaitable[None]],
        crashed: Callable[[BaseException], None],
        gates: Gates,
        stale: Callable[[], bool] | None = None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = limit
        self._run = run
        self._crashed = crashed
        self._stale = stale
        self._give_up = give_up
        self._context = contextvars.copy_context()
        self._ready: deque[Work] = deque()
        #: Makes work ready; `wake` starts it.
        self.put: Callable[[Work], None] = self._ready.append
        self._gates = gates
        gates.on_opened = self.wake
        self._stopped = False
        self._workers: list[_Worker] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self.running = 0

    def wake(self) -> None:
        """Starts ready work while there are free workers."""
        wanted = len(self._ready)
        while wanted > 0 and self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                wanted -= 1
        while wanted > 0 and len(self._workers) < self._limit:
            self._start_worker()
            wanted -= 1

    async def run_alone(self, work: Work) -> None:
        """Does a piece of work at once, even if gates are closed.

        It can be interrupted and stopped like other work. The caller makes sure that no other work
        runs.
        """
        worker = _Worker()
        worker.work = work
        worker.task = asyncio.get_running_loop().create_task(
            self._alone(work), context=self._context.copy()
        )
        self._workers.append(worker)
        self.running += 1
        try:
            await asyncio.wait([worker.task])
        finally:
            worker.work = None
            self.running -= 1
            if worker in self._workers:
                self._workers.remove(worker)
            self._notify_waiters()
            self._ended(worker.task)

    async def _alone(self, work: Work) -> None:
        await self._run(work)

    def take(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Removes and returns work that has not started."""
        taken: list[Job] = []
        queue = self._ready
        for _ in range(len(queue)):
            work = queue.popleft()
            jobs = jobs_of(work)
            gone = [job for job in jobs if unwanted(job)]
            taken += gone
            if not gone:
                queue.append(work)
            elif rest := [job for job in jobs if job not in gone]:
                queue.append(rest)
        return taken

    def interrupt(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Cancels the runs of these jobs and returns the jobs; their workers continue."""
        interrupted: list[Job] = []
        for worker in self._workers:
            if worker.work is None or worker.task is None:
                continue
            if jobs := [job for job in jobs_of(worker.work) if wanted(job)]:
                interrupted += jobs
                worker.interrupted = True
                worker.task.cancel()
        return interrupted

    def cancelled_by_us(self) -> bool:
        """Whether the runtime requested the cancellation of the current run. False if a handler
        cancelled its own task, or awaited a cancelled future."""
        if self._stopped:
            return True
        task = asyncio.current_task()
        return any(worker.interrupted for worker in self._workers if worker.task is task)

    def busy(self, wanted: Callable[[Job], bool] = lambda _job: True) -> bool:
        """Whether such a job is running."""
        return any(
            any(wanted(job) for job in jobs_of(worker.work))
            for worker in self._workers
            if worker.work is not None
        )

    def works(self) -> list[Work]:
        """Returns the running work."""
        return [worker.work for worker in self._workers if worker.work is not None]

    async def quiet(self, wanted: Callable[[Job], bool], seconds: float | None) -> bool:
        """Waits until no such job runs; False if this took longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.busy(wanted):
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
                return True
        return False

    async def stop(self, patience: float = 1.0) -> list[Job]:
        """Cancels every worker and waits for them; returns the work that did not end in time.

        Workers that are held by a thread get a short time only.
        """
        self._stopped = True
        tasks = [worker.task for worker in self._workers if worker.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        # Workers held by a thread stay: the solo gate must still see that they run.
        self._workers = [worker for worker in self._workers if worker.work is not None]
        return [job for work in self.works() for job in jobs_of(work)]

    def _start_worker(self) -> None:
        worker = _Worker()
        self._workers.append(worker)
        self._begin(worker)

    def _begin(self, worker: _Worker) -> None:
        """Starts a worker's task, in a context that no message has used."""
        context = self._context.copy()
        task = asyncio.get_running_loop().create_task(
            self._serve(worker, context.copy()), context=context
        )
        worker.task = task
        task.add_done_callback(lambda _task: self._left(worker, task))

    def _left(self, worker: _Worker, task: asyncio.Task[None]) -> None:
        """Handles the end of a worker's task: replaced, stopped, or cancelled by a handler."""
        self._ended(task)
        if task.cancelled() and not self._stopped and worker.task is task:
            if worker in self._workers:
                self._workers.remove(worker)  # a handler cancelled its own task late
            self.wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    async def _serve(self, worker: _Worker, clean: contextvars.Context) -> None:
        while not self._stopped:
            if not self._ready or self._gates.closed:
                await self._wait_for_work()
            elif await self._work(worker, clean):
                if self._ready:
                    await asyncio.sleep(0)
            else:
                if not self._stopped:
                    self._begin(worker)
                return

    async def _work(self, worker: _Worker, clean: contextvars.Context) -> bool:
        """Does some of the ready work. False means that the task must be replaced, because it was
        cancelled or a piece of work changed its context."""
        ready, run, gates, stale = self._ready, self._run, self._gates, self._stale
        task = worker.task
        if task is None:
            return False
        for _ in range(_MOST_IN_A_ROW):
            if stale is not None and stale():
                self._give_up()
                return True
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
                if self._waiters:
                    self._notify_waiters()
            if task.cancelling() or contextvars.copy_context() != clean:
                worker.interrupted = False
                return False
            if not ready or gates.closed or self._stopped:
                return True
        return True

    def _notify_waiters(self) -> None:
        """Wakes the tasks that wait until a piece of work is done."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_for_work(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._idle.remove(waiter)
            raise
