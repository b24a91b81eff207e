"""The scheduler: one per subscription; owns lanes, in-flight, waiting and settlement.

broker -> intake -> lanes -> workers -> outcome -> outputs confirmed -> settled

A waiting message holds its lane, never a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence

from protoflow.context import Context, OutputEncoder
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.outcomes import DONE, Done, Outcome
from protoflow.scheduling.arrival import Arrival
from protoflow.scheduling.batch_run import run_batch
from protoflow.scheduling.carrier import Carrier
from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.job import Job, Lanes
from protoflow.scheduling.routes import Router
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.workers import Work, Workers
from protoflow.transport import Subscription, SubscriptionSettings, Transport

_log = logging.getLogger("protoflow.scheduler")

#: Results after which a settlement with outputs has not happened.
_STILL_HELD = (SettleResult.UNKNOWN, SettleResult.REFUSED)


class Scheduler:
    """Runs one subscription: a `SubscriptionListener`.

    Args:
        settings: the subscription.
        router: its handlers.
        transport: where outputs and letters go.
        encode: encodes outputs.
        crashed: called with an error that must end the process.
    """

    def __init__(
        self,
        settings: SubscriptionSettings,
        router: Router,
        transport: Transport,
        encode: OutputEncoder,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self.settings = settings
        self.router = router
        #: What was received and is not settled yet.
        self.in_flight = InFlight(settings)
        #: Why the subscription does not work; empty is that it does.
        self.problems: dict[str, str] = {}
        self._transport = transport
        self._encode = encode
        self._crashed = crashed
        self._lanes = Lanes()
        self._workers = Workers(settings.concurrency, self._run, crashed, self._drained)
        self._arrival = Arrival(router, self._lanes, settings)
        self._intake: asyncio.Task[None] | None = None
        self._paused = asyncio.Event()
        self._paused.set()
        self._stopping = False
        self._subscription: Subscription
        self._settler: Settler
        self._carrier: Carrier

    async def start(self) -> None:
        """Joins the group and begins to handle."""
        self._subscription = await self._transport.subscribe(self.settings, self)
        self._settler = Settler(self._transport, self._subscription, self._settled)
        self._carrier = Carrier(
            self, self._transport, self._subscription, self._settler, self.settings.ordering
        )
        self._arrival.bind(self._carrier, self._begin, self._workers)
        self._intake = asyncio.get_running_loop().create_task(self._take())
        self._intake.add_done_callback(self._intake_ended)

    async def stop(self, seconds: float) -> None:
        """Takes nothing more, lets handlers finish for so many seconds, settles, leaves."""
        self._stopping = True
        if self._intake is None:
            return
        self._intake.cancel()
        await asyncio.wait([self._intake])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        for job in self._unstarted(_every):
            self._carrier.release(job)
        self._settler.flush()
        if not await self._workers.quiet(_every, seconds):
            _log.warning(
                "%s: handlers still ran after %.0f s; their messages are given back",
                self.settings.name,
                seconds,
            )
        for job in await self._workers.stop():
            job.lost = True  # held by a thread: it stays unsettled, and comes again
        await self._carrier.burials.finished(max(0.0, deadline - loop.time()))
        for job in self._unstarted(_every) + self._carrier.burials.take(_every):
            self._carrier.release(job)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(5.0, seconds / 2)):
                await self._settler.drained()
                # Outputs that were not taken made retries and letters: given back, too.
                for job in self._unstarted(_every) + self._carrier.burials.take(_every):
                    self._carrier.release(job)
                await self._settler.drained()
        await self._subscription.stop()

    async def _drained(self) -> None:
        await self._settler.drained()

    def pause(self) -> None:
        """Takes and starts nothing more until `resume`; what runs goes on."""
        self._paused.clear()
        self._workers.close_gate("paused")

    def resume(self) -> None:
        """Ends `pause`."""
        self._paused.set()
        self._workers.open_gate("paused")

    @property
    def paused(self) -> bool:
        """Whether somebody paused this subscription."""
        return not self._paused.is_set()

    @property
    def waiting(self) -> int:
        """How many jobs wait in memory for their next run."""
        return self._carrier.waiting if self._intake is not None else 0

    @property
    def running(self) -> int:
        """How many handlers run."""
        return self._workers.running

    @property
    def settled(self) -> bool:
        """Whether nothing runs and nothing is unsettled."""
        return self.in_flight.count == 0 and not self._settler.busy

    # The listener's part.

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Drops what has not started, lets what runs finish, cancels what does not."""
        gone = set(shards)

        def moves(job: Job) -> bool:
            return job.delivery.shard in gone

        for job in self._unstarted(moves):
            self._forget(job)
        deadline = asyncio.get_running_loop().time() + drain
        finished = await self._workers.quiet(moves, drain)
        while finished and any(moves(job) for job in self._carrier.publishing):
            self._settler.flush()
            await asyncio.sleep(0.005)
            finished = asyncio.get_running_loop().time() < deadline
        if not finished:
            self._lose(moves)
            await self._workers.quiet(moves, 1.0)
        for job in self._unstarted(moves) + self._carrier.burials.take(moves):
            self._forget(job)
        self._settler.flush()

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Cancels the handlers of lost leases and settles nothing of them."""
        lost = {id(delivery) for delivery in deliveries}

        def is_lost(job: Job) -> bool:
            return id(job.delivery) in lost

        for job in self._unstarted(is_lost) + self._carrier.burials.take(is_lost):
            self._forget(job)
        self._lose(is_lost)

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Keeps the state for readiness."""
        self._problem("transport", None if healthy else detail)

    # The carrier's host.

    def again(self, job: Job) -> None:
        """The job's wait is over."""
        self._begin(job)
        self._workers.wake()

    def leave(self, job: Job) -> None:
        """The next of the job's lane may start."""
        if self._pass_on(job):
            self._workers.wake()

    def _pass_on(self, job: Job) -> bool:
        """The next of the job's lane is ready; whether there is one."""
        follower = self._lanes.leave(job)
        if follower is None:
            return False
        while follower is not None:
            self._begin(follower)
            follower = self._lanes.follow(follower) if follower.route.gatherer else None
        return True

    def degrade(self, reason: str, detail: str | None) -> None:
        """Readiness turns red; None ends that."""
        self._problem(reason, detail)

    def block(self, reason: str, blocked: bool) -> None:
        """Starts nothing more, and readiness turns red; or ends that."""
        self._problem(reason, reason if blocked else None)
        if blocked:
            self._workers.close_gate(reason)
        else:
            self._workers.open_gate(reason)

    def hold(self, reason: str, held: bool) -> None:
        """Starts nothing more, for a reason of a handler's; or ends that."""
        self._problem(reason, reason if held else None)
        if held:
            self._workers.close_gate(reason)
        else:
            self._workers.open_gate(reason)

    # From the broker to the workers.

    def put_batch(self, jobs: list[Job]) -> None:
        """A batch is gathered; what comes after it in its lanes waits for it."""
        self._lanes.close(jobs)
        self._workers.put(jobs)
        self._workers.wake()

    async def _take(self) -> None:
        accept = self._arrival.accept
        while True:
            await self._paused.wait()
            count, size = await self.in_flight.room()
            if self.paused:
                continue
            deliveries = await self._subscription.receive(count, size)
            if not deliveries:
                return
            self.in_flight.came(deliveries)
            for delivery in deliveries:
                accept(delivery)
            self._workers.wake()

    def _intake_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TransportError):
            self._problem("intake", str(error))
            _log.error("%s: the subscription ended: %s", self.settings.name, error)
        elif error is not None:
            self._crashed(error)
        elif not self._stopping:
            self._problem("intake", "the subscription ended")

    def _begin(self, job: Job) -> None:
        gatherer = job.route.gatherer
        if gatherer is None:
            self._workers.put(job)
        elif job.single:
            self._workers.put([job])
        else:
            gatherer.add(job)

    # From the handler to the broker.

    async def _run(self, work: Work) -> None:
        if isinstance(work, list):
            await self._run_batch(work)
            return
        job = work
        route = job.route
        delivery = job.delivery
        context = Context(
            delivery, job.message, delivery.failures + 1, route.spec.name, route.spec.group,
            self._encode,
        )  # fmt: skip
        try:
            outcome = await route.run(delivery, context)
        except asyncio.CancelledError:
            context.mark_cancelled()
            self._cancelled((job,))
            raise
        if job.lost:
            self._forget(job)
        elif outcome is DONE and not context.outputs and not self._carrier.exhausted:
            route.spec.stats.handled += 1
            self._settler.settle(job, Settlement(delivery))
            if job.lane is not None:
                self._pass_on(job)  # this worker takes it next: nobody need be woken
        else:
            job.confirmed = context.confirm
            self._carrier.carry_out(job, outcome, _kept(outcome, context), context.decoded)

    async def _run_batch(self, jobs: list[Job]) -> None:
        try:
            await run_batch(jobs, self._encode, self._carrier, self._lanes, self._begin)
        except asyncio.CancelledError:
            self._cancelled(jobs)
            raise
        self._workers.wake()

    def _cancelled(self, jobs: Sequence[Job]) -> None:
        """Cancellation is not failure: what is still ours is given back."""
        for job in jobs:
            if job.lost:
                self._forget(job)
            else:
                self._carrier.release(job)
                if job.lane is not None:
                    self.leave(job)

    def _settled(self, jobs: Sequence[Job], results: Sequence[SettleResult]) -> None:
        count = size = 0
        for job, result in zip(jobs, results, strict=True):
            if result is SettleResult.DONE and job.after is None:
                count += 1
                size += job.delivery.size
            else:
                self._settled_specially(job, result)
        self.in_flight.left(count, size)

    def _settled_specially(self, job: Job, result: SettleResult) -> None:
        """Somebody waits for the answer, or it is a bad one."""
        after = job.after
        if after is not None:
            if job.lost:
                return
            if result in _STILL_HELD:
                after(result)
                return
        self.in_flight.left(1, job.delivery.size)
        if result is not SettleResult.DONE:
            stats = job.route.spec.stats
            if result is SettleResult.LOST:
                stats.lost += 1
            else:
                stats.unknown += 1
            _log.warning(
                "%s: settling %s: %s; it may be delivered again",
                self.settings.name, job.message.id, result.name.lower(),
            )  # fmt: skip
        if after is not None:
            after(result)

    # What is given back or lost.

    def _unstarted(self, wanted: Callable[[Job], bool]) -> list[Job]:
        jobs = self._workers.take(wanted)
        for route in self.router.all:
            if route.gatherer is not None:
                gathered = route.gatherer.take()
                jobs += [job for job in gathered if wanted(job)]
                for job in gathered:
                    if not wanted(job):
                        route.gatherer.add(job)
        jobs += self._carrier.take_waiting(wanted)
        return jobs + self._lanes.drop(wanted)

    def _lose(self, wanted: Callable[[Job], bool]) -> None:
        for job in self._workers.interrupt(wanted):
            job.lost = True

    def _forget(self, job: Job) -> None:
        """Ends a job without settling it."""
        job.lost = True
        if job.lane is not None:
            self.leave(job)
        self.in_flight.left(1, job.delivery.size)

    def _problem(self, name: str, detail: str | None) -> None:
        if detail is None:
            self.problems.pop(name, None)
        else:
            self.problems[name] = detail


def _every(_job: Job) -> bool:
    return True


def _kept(outcome: Outcome, context: Context) -> Sequence[Message]:
    """Outputs go out with success only."""
    return context.take_outputs() if isinstance(outcome, Done) else ()
