"""The engine of a subscription: its components, and the steps from a run to settlement.

workers -> outcome -> outputs confirmed -> settled
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protoflow.context import Context, OutputEncoder
from protoflow.contract.spec import Ordering
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.outcomes import DONE, Done, Outcome
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.activity import Activity
from protoflow.scheduling.admission import Admission
from protoflow.scheduling.arrival import Arrival
from protoflow.scheduling.batch_run import run_batch
from protoflow.scheduling.draining import Drain
from protoflow.scheduling.gate import solo_gate
from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.readiness import Readiness
from protoflow.scheduling.routed_settler import settler_for
from protoflow.scheduling.router import Router
from protoflow.scheduling.solo_runs import SoloRuns
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.turns import Turns
from protoflow.scheduling.unfinished import Unfinished
from protoflow.scheduling.watchdog import Watchdog
from protoflow.scheduling.workers import Work, Workers
from protoflow.transport.interface import (
    Capabilities,
    Isolation,
    Subscription,
    SubscriptionSettings,
)

if TYPE_CHECKING:
    from protoflow.scheduling.frames import Frames

_log = logging.getLogger("protoflow.scheduler")


class Escaped(Exception):  # noqa: N818  the name states what happened
    """A run ended with a BaseException that is no Exception, or cancelled itself."""


class Engine:
    """Runs the jobs of one subscription: the `Host` of its outcomes and batches.

    Args:
        settings: the subscription.
        router: its handlers.
        capabilities: the capabilities of the transport.
        submitter: publishes outputs and dead letters.
        subscription: the subscription at the transport.
        encode: encodes outputs.
        readiness: problems and gates.
        in_flight: counts messages that are received and not settled.
        crashed: called with an error that must end the process.
        stall_after: seconds without movement after which waiting work turns readiness red; 0.0
            is never.
        routes: divides outputs by transport; None if there is only one transport.
        frames: opens the frames of a schema registry; None without one.
    """

    def __init__(
        self, settings: SubscriptionSettings, router: Router, capabilities: Capabilities,
        submitter: Submitter, subscription: Subscription, encode: OutputEncoder,
        readiness: Readiness, in_flight: InFlight, crashed: Callable[[BaseException], None],
        stall_after: float, routes: OutputRoutes | None = None, frames: Frames | None = None,
    ) -> None:  # fmt: skip
        # The order is at risk if the process stood still for longer than a lease.
        ordered = settings.ordering is not Ordering.NONE
        leased = ordered and capabilities.leases and stall_after > 0
        self._settings = settings
        self._encode = encode
        self._in_flight = in_flight
        self._lanes = Lanes()
        self.mark_unready = readiness.mark_unready
        self.pause_for = readiness.pause_for
        self.workers = Workers(
            settings.concurrency, self._run, crashed, readiness.gates,
            self._stood_still if leased else None, self._give_back_unstarted,
        )  # fmt: skip
        self.settler = settler_for(routes, submitter, subscription, self._settled, self._failed)
        ordering = settings.ordering
        self.applier = OutcomeApplier(self, submitter, subscription, self.settler, ordering)
        self.gate = solo_gate()
        self.solo_runs = SoloRuns(
            self.workers, readiness, self.settler, self.applier, self._receive_alone, self._drop
        )
        self.suspects = self._suspects(_isolation(subscription, capabilities))
        admission = Admission(settings.group, self.applier, self.suspects)
        self._turns = Turns(self._lanes, self.workers, admission)
        self.put_batch = self._turns.put_batch
        self.run_again: Callable[[Job], None] = self._turns.run_again
        self.run_singly = self._turns.run_singly
        self.end_turn = self._turns.end
        turns = self._turns
        self.arrival = self._arrival(router, turns, frames)
        self.unfinished = Unfinished(
            router, self._lanes, self.workers, self.applier, self.suspects, turns, in_flight
        )
        self.drain = self._drain()
        self.watchdog = self._watchdog(readiness, subscription, stall_after, leased)

    def _arrival(self, router: Router, turns: Turns, frames: Frames | None) -> Arrival:
        arrival = Arrival(
            router, self._lanes, self._settings, self.applier, self.workers, turns, frames
        )
        if frames is not None:
            self.run_again = arrival.run_again
        return arrival

    def _suspects(self, marks: Isolation | None) -> Suspects:
        settings = self._settings
        return Suspects(settings.name, self.solo_runs, self.gate, marks, settings.lease / 2)

    def _drain(self) -> Drain:
        return Drain(
            self._settings.name, self.workers, self.settler, self.applier, self.suspects,
            self.unfinished.take_unstarted,
        )  # fmt: skip

    def _watchdog(
        self, readiness: Readiness, subscription: Subscription, stall_after: float, leased: bool
    ) -> Watchdog:
        activity = Activity(
            self._settings.name, readiness, subscription, self._in_flight, self.workers,
            self.applier, self.settler, self.suspects,
        )  # fmt: skip
        return Watchdog(
            activity, readiness.mark_unready, stall_after, _p99,
            self._give_back_unstarted if leased else None, self._settings.lease,
        )  # fmt: skip

    # From the handler to the broker.

    async def _run(self, work: Work) -> None:
        if isinstance(work, list):
            await run_batch(work, self._encode, self.applier, self._lanes, self)
            self.workers.wake()
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
            self._drop(job)
        elif outcome is DONE and not context.outputs and not self.applier.exhausted:
            route.spec.stats.handled += 1
            self.settler.settle(job, Settlement(delivery))
            if job.lane is not None:
                # this worker takes the job next, so no other worker is woken
                self._turns.pass_on(job)
        else:
            job.confirmed = context.confirm
            self.applier.apply_outcome(job, outcome, _kept(outcome, context), context.decoded)

    def escaped(self, error: BaseException, job: Job, context: Context) -> Outcome:
        """Returns the failed run for an error that no middleware caught: also a panic of an
        extension, or a handler's cancellation of its own task. Raises the error again if it is
        meant for the runtime."""
        if isinstance(error, asyncio.CancelledError):
            if self.workers.cancelled_by_us():
                context.mark_cancelled()
                raise error
        elif isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error
        wrapped = Escaped(f"{type(error).__name__}: the run ended with it")
        return as_outcome(wrapped, error, job.delivery, job.route.spec)

    def cancelled(self, jobs: Sequence[Job]) -> None:
        """Gives back the jobs of a cancelled run: a cancellation is no failure."""
        self.unfinished.give_back(jobs)

    def settled_with(self, others: Sequence[Job]) -> None:
        """Accounts for jobs that were settled together with another one."""
        self._in_flight.left(len(others), sum(job.delivery.size for job in others))

    def _failed(self, job: Job, error: Exception) -> None:
        """Handles an error that was raised by a callback."""
        self.applier.failed(job, error)

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
        self._in_flight.left(count, size)

    def _settled_specially(self, job: Job, result: SettleResult) -> None:
        """Handles a settlement result that is awaited or is not OK."""
        if job.after is not None and (job.lost or job.after(result)):
            return  # the job was dropped already, or another component continues it
        self._in_flight.left(1, job.delivery.size)
        if result is not SettleResult.DONE:
            job.route.spec.stats.lost += 1
            _log.warning(
                "a message was not settled, and may be redelivered",
                extra={
                    "subscription": self._settings.name,
                    "message_id": job.message.id,
                    "result": result.name.lower(),
                },
            )

    # Suspects, and jobs that were held for too long.

    def _receive_alone(self, delivery: Delivery) -> Job | None:
        """Returns a job for a delivery from the solo queue."""
        self._in_flight.came((delivery,))
        return self.arrival.job_alone(delivery)

    def _drop(self, job: Job) -> None:
        self.unfinished.drop(job)

    def _stood_still(self) -> bool:
        return self.watchdog.stood_still(self._settings.lease)

    def _give_back_unstarted(self) -> None:
        """Leases may have ended while the process stood still: a job that has not started might
        overtake messages that others have handled."""
        self.watchdog.beat = asyncio.get_running_loop().time()
        jobs = self.unfinished.take_unstarted(_every)
        _log.warning(
            "the process stood still for longer than a lease, and messages were given back",
            extra={"subscription": self._settings.name, "messages": len(jobs)},
        )
        for job in jobs:
            self.applier.release(job)
            if job.lane is not None:
                self._turns.end(job)


def _isolation(subscription: Subscription, capabilities: Capabilities) -> Isolation | None:
    """Returns the store of start marks; None if marks do not survive the process."""
    if isinstance(subscription, Isolation) and capabilities.proves_killers:
        return subscription
    return None


def _p99(job: Job) -> float | None:
    latency = job.route.spec.stats.timings.latency()
    return latency.p99_ns / 1e9 if latency.sample_size else None


def _every(_job: Job) -> bool:
    return True


def _kept(outcome: Outcome, context: Context) -> Sequence[Message]:
    """Outputs are published only if the run succeeds."""
    return context.take_outputs() if isinstance(outcome, Done) else ()
