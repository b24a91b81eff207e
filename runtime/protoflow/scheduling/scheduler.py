"""The scheduler: one per subscription; owns lanes, in-flight, waiting and settlement.

broker -> intake -> lanes -> workers -> outcome -> outputs confirmed -> settled

A waiting message holds its lane, never a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from protoflow.context import Context, OutputEncoder
from protoflow.contract.spec import Ordering
from protoflow.errors import TransportError
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.outcomes import DONE, Done, Outcome
from protoflow.scheduling.activity import Activity
from protoflow.scheduling.arrival import Arrival, Turn
from protoflow.scheduling.batch_run import run_batch
from protoflow.scheduling.draining import Drain
from protoflow.scheduling.gate import SoloGate, solo_gate
from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import Carrier
from protoflow.scheduling.router import Router
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.solo_runs import SoloRuns
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.watchdog import Watchdog
from protoflow.scheduling.workers import Work, Workers
from protoflow.transport.interface import Isolation, Subscription, SubscriptionSettings, Transport

_log = logging.getLogger("protoflow.scheduler")

#: Seconds between two looks at what is on its way, while a shard moves.
_GLANCE = 0.005
_INTAKE = "intake"
_TRANSPORT = "transport"


class Escaped(Exception):  # noqa: N818  tells what happened
    """A run ended with something that is no Exception, or cancelled itself."""


class Scheduler:
    """Runs one subscription: a `SubscriptionListener`.

    Args:
        settings: the subscription.
        router: its handlers.
        transport: where outputs and letters go.
        encode: encodes outputs.
        crashed: called with an error that must end the process.
        stall_after: seconds without movement after which waiting work turns readiness red; 0.0
            is never.
    """

    def __init__(
        self,
        settings: SubscriptionSettings,
        router: Router,
        transport: Transport,
        encode: OutputEncoder,
        crashed: Callable[[BaseException], None],
        stall_after: float = 0.0,
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
        self._stall_after = stall_after
        self._lanes = Lanes()
        self._intake: asyncio.Task[None] | None = None
        self._paused = asyncio.Event()
        self._paused.set()
        self._stopping = False
        self._joined = False
        self._suspects_wait = False
        self._gate: SoloGate
        self._subscription: Subscription
        self._workers: Workers
        self._settler: Settler
        self._carrier: Carrier
        self._suspects: Suspects
        self._solo_runs: SoloRuns
        self._arrival: Arrival
        self._drain: Drain
        self._watchdog: Watchdog

    async def join(self) -> None:
        """Joins the group; nothing is received before `begin`."""
        settings, transport = self.settings, self._transport
        ordered = settings.ordering is not Ordering.NONE
        leased = ordered and transport.capabilities.leases and self._stall_after > 0
        self._workers = Workers(
            settings.concurrency, self._run, self._crashed,
            self._stood_still if leased else None, self._give_back_unstarted,
        )  # fmt: skip
        subscription = self._subscription = await transport.subscribe(settings, self)
        self._settler = Settler(transport, subscription, self._settled, self._failed)
        self._carrier = Carrier(self, transport, subscription, self._settler, settings.ordering)
        self._gate = solo_gate()
        isolation = None
        if isinstance(subscription, Isolation) and transport.capabilities.proves_killers:
            isolation = subscription
        self._solo_runs = SoloRuns(
            self._workers, self._settler, self._carrier, self._receive_alone, self._forget,
            self.degrade,
        )  # fmt: skip
        self._suspects = Suspects(
            settings.name, self._solo_runs, self._gate, isolation, settings.lease / 2
        )
        self._arrival = Arrival(
            self.router, self._lanes, settings, self._carrier, self._suspects, self._workers,
            self._begin, self.leave,
        )  # fmt: skip
        self._drain = Drain(
            settings.name, self._workers, self._settler, self._carrier, self._suspects,
            self._unstarted,
        )  # fmt: skip
        activity = Activity(
            settings.name, self.problems, lambda: self.paused, subscription, self.in_flight,
            self._workers, self._carrier, self._settler, self._suspects,
        )  # fmt: skip
        self._watchdog = Watchdog(
            activity, self.degrade, self._stall_after, _p99,
            self._give_back_unstarted if leased else None, settings.lease,
        )  # fmt: skip
        self._joined = True
        if self.paused:
            self._workers.close_gate("paused")

    def begin(self) -> None:
        """Begins to receive and to handle."""
        self._gate.join(self._solo_runs)
        if self._stall_after > 0:
            self._watchdog.start()
        self._intake = asyncio.get_running_loop().create_task(self._take())
        self._intake.add_done_callback(self._intake_ended)
        if self._suspects_wait:
            self._suspects.ask()

    async def stop(self, seconds: float) -> None:
        """Takes nothing more, lets handlers finish, settles, leaves: within so many seconds."""
        self._stopping = True
        if not self._joined:
            return
        if self._intake is not None:
            self._intake.cancel()
            try:
                await asyncio.wait([self._intake])
                await self._drain.drain(seconds)
            finally:  # also when the time of the shutdown is over
                self._gate.leave(self._solo_runs)
                self._watchdog.stop()
        await self._subscription.stop()

    def cancel_runs(self) -> None:
        """Cancels what runs; its messages are given back."""
        if self._joined:
            self._workers.interrupt(_every)

    def pause(self) -> None:
        """Takes and starts nothing more until `resume`; what runs goes on."""
        self._paused.clear()
        if self._joined:
            self._workers.close_gate("paused")

    def resume(self) -> None:
        """Ends `pause`."""
        self._paused.set()
        if self._joined:
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
        return self._workers.running if self._intake is not None else 0

    @property
    def settled(self) -> bool:
        """Whether nothing runs and nothing is unsettled."""
        return self.in_flight.count == 0 and (self._intake is None or not self._settler.busy)

    # The listener's part.

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Drops what has not started, lets what runs finish, cancels what does not."""
        if not self._joined:
            return  # nothing was received yet
        gone = set(shards)

        def moves(job: Job) -> bool:
            return job.delivery.shard in gone

        for job in self._unstarted(moves):
            self._forget(job)
        self._suspects.lose(moves, begun=False)
        deadline = asyncio.get_running_loop().time() + drain
        finished = await self._workers.quiet(moves, drain)
        while finished and self._carrier.publishes(moves):
            self._settler.flush()
            await asyncio.sleep(_GLANCE)
            finished = asyncio.get_running_loop().time() < deadline
        if not finished:
            self._lose(moves)
            await self._workers.quiet(moves, 1.0)
        self._end(self._unstarted(moves) + self._carrier.take_published(moves), moves)
        self._suspects.lose(moves)
        self._settler.flush()

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Cancels the handlers of lost leases and settles nothing of them."""
        if not self._joined:
            return
        lost = {id(delivery) for delivery in deliveries}

        def is_lost(job: Job) -> bool:
            return id(job.delivery) in lost

        self._end(self._unstarted(is_lost) + self._carrier.take_published(is_lost), is_lost)
        self._suspects.lose(is_lost)
        self._lose(is_lost)

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Keeps the state for readiness."""
        self.degrade(_TRANSPORT, None if healthy else detail)

    def suspects_waiting(self) -> None:
        """The solo queue holds messages that are to be run alone."""
        if self._intake is None:  # while it joins: a solo queue from before
            self._suspects_wait = True
        else:
            self._suspects.ask()

    # The part of those who carry out outcomes.

    def again(self, job: Job) -> None:
        """The job's wait is over."""
        if not self._arrival.suspected(job) or self._arrival.turn(job) is Turn.BEGINS:
            self._begin(job)
            self._workers.wake()

    def one_by_one(self, jobs: Sequence[Job]) -> None:
        """The jobs of a batch run again, each by itself; they have their turns."""
        turns: set[object] = set()
        back: list[Job] = []
        for job in jobs:
            job.single = True
            if job.lane is not None and job.lane in turns:
                back.append(job)
            else:
                turns.add(job.lane)
                self._begin(job)
        self._lanes.take_back(back)
        self._workers.wake()

    def leave(self, job: Job) -> None:
        """The next of the job's lane may start."""
        if self._pass_on(job):
            self._workers.wake()

    def _pass_on(self, job: Job) -> bool:
        """The next of the job's lane is ready; whether there is one."""
        follower = self._lanes.leave(job)
        while follower is not None and follower.unchecked:
            turn = self._arrival.turn(follower)
            if turn is Turn.WAITS:
                return False
            if turn is Turn.BEGINS:
                break
            follower = self._lanes.leave(follower)
        if follower is None:
            return False
        while follower is not None:
            self._begin(follower)
            follower = self._lanes.follow(follower) if follower.route.gatherer else None
        return True

    def settled_with(self, others: Sequence[Job]) -> None:
        """These were settled together with another job."""
        self.in_flight.left(len(others), sum(job.delivery.size for job in others))

    def degrade(self, reason: str, detail: str | None) -> None:
        """Readiness turns red; None ends that."""
        if detail is None:
            self.problems.pop(reason, None)
        else:
            self.problems[reason] = detail

    def block(self, reason: str, blocked: bool) -> None:
        """Starts nothing more, and readiness turns red; or ends that."""
        self.degrade(reason, reason if blocked else None)
        if blocked:
            self._workers.close_gate(reason)
        else:
            self._workers.open_gate(reason)

    #: The same, for a reason of a handler's.
    hold = block

    def _receive_alone(self, delivery: Delivery) -> Job | None:
        """A job for a delivery of the solo queue."""
        self.in_flight.came((delivery,))
        return self._arrival.job_alone(delivery)

    # From the broker to the workers.

    def put_batch(self, jobs: list[Job]) -> None:
        """A batch is gathered; what comes after it in its lanes waits for it."""
        self._lanes.close(jobs)
        self._workers.put(jobs)
        self._workers.wake()

    async def _take(self) -> None:
        accept, refuse = self._arrival.accept, self._arrival.refuse
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
                try:
                    accept(delivery)
                except Exception as error:  # of one message, and of no other
                    refuse(delivery, error)
            self._workers.wake()

    def _intake_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TransportError):
            self.degrade(_INTAKE, str(error))
            _log.error("%s: the subscription ended: %s", self.settings.name, error)
        elif error is not None:
            self._crashed(error)
        elif not self._stopping:
            self.degrade(_INTAKE, "the subscription ended")

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
            await run_batch(work, self._encode, self._carrier, self._lanes, self)
            self._workers.wake()
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
        except BaseException as error:
            try:
                outcome = self.escaped(error, job, context)
            except asyncio.CancelledError:
                self.cancelled((job,))
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

    def escaped(self, error: BaseException, job: Job, context: Context) -> Outcome:
        """What a run ended with that no middleware caught is a failed run of its message: also a
        panic of an extension, or a handler's cancellation of its own task. Raises the error again
        if it is meant for the runtime."""
        if isinstance(error, asyncio.CancelledError):
            if self._workers.cancelled_by_us():
                context.mark_cancelled()
                raise error
        elif isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        wrapped = Escaped(f"{type(error).__name__}: the run ended with it")
        return as_outcome(wrapped, error, job.delivery, job.route.spec)

    def cancelled(self, jobs: Sequence[Job]) -> None:
        """Cancellation is not failure: what is still ours is given back."""
        for job in jobs:
            if job.lost:
                self._forget(job)
            else:
                self._carrier.forget(job)
                self._carrier.release(job)
                if job.lane is not None:
                    self.leave(job)

    def _failed(self, job: Job, error: Exception) -> None:
        """A callback on the answer for a job raised."""
        self._carrier.failed(job, error)

    def _settled(self, jobs: Sequence[Job], results: Sequence[SettleResult]) -> None:
        count = size = 0
        for job, result in zip(jobs, results, strict=True):
            if result is SettleResult.DONE and job.after is None:
                count += 1
                size += job.delivery.size
            else:
                try:
                    self._settled_specially(job, result)
                except Exception as error:
                    self._failed(job, error)
        self.in_flight.left(count, size)

    def _settled_specially(self, job: Job, result: SettleResult) -> None:
        """Somebody waits for the answer, or it is a bad one."""
        if job.after is not None and (job.lost or job.after(result)):
            return  # it was forgotten already, or goes on
        self.in_flight.left(1, job.delivery.size)
        if result is not SettleResult.DONE:
            job.route.spec.stats.lost += 1
            _log.warning(
                "%s: settling %s: %s; it may be delivered again",
                self.settings.name, job.message.id, result.name.lower(),
            )  # fmt: skip

    # What is given back or lost.

    def _stood_still(self) -> bool:
        return self._watchdog.stood_still(self.settings.lease)

    def _give_back_unstarted(self) -> None:
        """Leases may have ended while the process stood still: what has not started might
        overtake what others have handled meanwhile."""
        self._watchdog.beat = asyncio.get_running_loop().time()
        jobs = self._unstarted(_every)
        _log.warning(
            "%s: the process stood still for longer than a lease; %d messages are given back",
            self.settings.name, len(jobs),
        )  # fmt: skip
        for job in jobs:
            self._carrier.release(job)
            if job.lane is not None:
                self.leave(job)

    def _unstarted(self, wanted: Callable[[Job], bool]) -> list[Job]:
        jobs = self._workers.take(wanted)
        for route in self.router.all:
            if route.gatherer is not None:
                gathered = route.gatherer.take()
                jobs += [job for job in gathered if wanted(job)]
                for job in gathered:
                    if not wanted(job):
                        route.gatherer.add(job)
        jobs += self._carrier.take_waiting(wanted) + self._suspects.take(wanted)
        return jobs + self._lanes.drop(wanted)

    def _lose(self, wanted: Callable[[Job], bool]) -> None:
        for job in self._workers.interrupt(wanted):
            job.lost = True

    def _end(self, jobs: Sequence[Job], lost: Callable[[Job], bool]) -> None:
        """Those that are lost are forgotten; the others of their batches are given back."""
        for job in jobs:
            if lost(job):
                self._forget(job)
            else:
                self.cancelled((job,))

    def _forget(self, job: Job) -> None:
        """Ends a job without settling it."""
        job.lost = True
        self._carrier.forget(job)
        if job.lane is not None:
            self.leave(job)
        self.in_flight.left(1, job.delivery.size)


def _p99(job: Job) -> float | None:
    latency = job.route.spec.stats.timings.latency()
    return latency.p99_ns / 1e9 if latency.sample_size else None


def _every(_job: Job) -> bool:
    return True


def _kept(outcome: Outcome, context: Context) -> Sequence[Message]:
    """Outputs go out with success only."""
    return context.take_outputs() if isinstance(outcome, Done) else ()
