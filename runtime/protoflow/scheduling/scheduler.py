"""The scheduler of one subscription: it owns lanes, in-flight messages and settlement.

broker -> intake -> lanes -> workers -> outcome -> outputs confirmed -> settled

A waiting message holds its lane, never a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from protoflow.context import OutputEncoder
from protoflow.errors import TransportError
from protoflow.message import Delivery
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.batching import Gatherer
from protoflow.scheduling.engine import Engine
from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.job import Job
from protoflow.scheduling.readiness import Readiness
from protoflow.scheduling.router import Router
from protoflow.transport.interface import EndsIntake, Subscription, SubscriptionSettings, Transport

if TYPE_CHECKING:
    from protoflow.scheduling.frames import Frames

_log = logging.getLogger("protoflow.scheduler")

#: Seconds between two checks of unconfirmed outputs while a shard moves.
_POLL = 0.005
#: Seconds that cancelled runs of a moving shard get to end.
_CANCELLING = 1.0
_INTAKE = "intake"
_TRANSPORT = "transport"
_PAUSED = "paused"
_DRAINED = "drained"


class Scheduler:
    """Runs one subscription: a `SubscriptionListener`.

    Args:
        settings: the subscription.
        router: its handlers.
        transport: the broker, from which it consumes.
        submitter: publishes outputs and dead letters.
        encode: encodes outputs.
        readiness: problems and gates.
        crashed: called with an error that must end the process.
        stall_after: seconds without movement after which waiting work turns readiness red; 0.0
            is never.
        routes: divides outputs by transport; None if there is only one transport.
        frames: opens the frames of a schema registry; None without one.
    """

    def __init__(
        self, settings: SubscriptionSettings, router: Router, transport: Transport,
        submitter: Submitter, encode: OutputEncoder, readiness: Readiness,
        crashed: Callable[[BaseException], None], stall_after: float = 0.0,
        routes: OutputRoutes | None = None, frames: Frames | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.router = router
        #: The messages that were received and are not settled yet.
        self.in_flight = InFlight(settings)
        self._transport = transport
        self._submitter = submitter
        self._encode = encode
        self._readiness = readiness
        self._crashed = crashed
        self._stall_after = stall_after
        self._routes = routes
        self._frames = frames
        self._engine: Engine | None = None
        self._subscription: Subscription | None = None
        self._intake: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._stopping: asyncio.Future[None] | None = None
        self._suspects_wait = False

    async def join(self) -> None:
        """Joins the group; no message is received before `begin`."""
        subscription = await self._transport.subscribe(self.settings, self)
        engine = Engine(
            self.settings, self.router, self._transport.capabilities, self._submitter,
            subscription, self._encode, self._readiness, self.in_flight, self._crashed,
            self._stall_after, self._routes, self._frames,
        )  # fmt: skip
        for route in self.router.all:
            if route.registration.batched:
                route.gatherer = Gatherer(route.registration.batch, engine.put_batch)
        self._subscription, self._engine = subscription, engine

    def begin(self) -> None:
        """Starts receiving and handling messages."""
        engine, subscription = self._engine, self._subscription
        if engine is None or subscription is None:
            raise RuntimeError(f"{self.settings.name}: call join before begin")
        engine.gate.join(engine.solo_runs)
        if self._stall_after > 0:
            engine.watchdog.start()
        self._intake = asyncio.get_running_loop().create_task(self._take(engine, subscription))
        self._intake.add_done_callback(self._intake_ended)
        if self._suspects_wait:
            engine.suspects.ask()

    async def stop(self, seconds: float) -> None:
        """Stops receiving, lets handlers finish, settles and leaves, within this many seconds.

        If `drain` has begun the same, waits for it.
        """
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._leave(seconds))
        await self._stopping

    def drain(self, seconds: float) -> None:
        """Begins to stop, and turns readiness red. It is idempotent."""
        if self._stopping is None:
            self._readiness.mark_unready(_DRAINED, "drained by an operator; restart the process")
            self._stopping = asyncio.ensure_future(self._leave(seconds))
            self._stopping.add_done_callback(self._drained)

    def _drained(self, stopping: asyncio.Future[None]) -> None:
        if not stopping.cancelled() and (error := stopping.exception()) is not None:
            _log.error("%s: drained, but not cleanly: %s", self.settings.name, error)

    async def _leave(self, seconds: float) -> None:
        engine, subscription = self._engine, self._subscription
        if engine is None or subscription is None:
            return
        if self._intake is not None:
            self._intake.cancel()
            try:
                await asyncio.wait([self._intake])
                if isinstance(subscription, EndsIntake):
                    subscription.end_intake()
                await engine.drain.drain(seconds)
            finally:  # this runs even if the shutdown time is over
                engine.gate.leave(engine.solo_runs)
                engine.watchdog.stop()
        await subscription.stop()

    def cancel_runs(self) -> None:
        """Cancels the running handlers; their messages are given back."""
        if self._engine is not None:
            self._engine.workers.interrupt(lambda _job: True)

    def pause(self) -> None:
        """Receives and starts nothing until `resume`; running handlers continue."""
        self._resumed.clear()
        self._readiness.gates.close(_PAUSED)

    def resume(self) -> None:
        """Ends `pause`."""
        self._resumed.set()
        self._readiness.gates.open(_PAUSED)

    @property
    def paused(self) -> bool:
        """Whether this subscription was paused by `pause`."""
        return not self._resumed.is_set()

    @property
    def state(self) -> str:
        """Returns running, paused, draining or drained."""
        if self._stopping is not None:
            return "drained" if self._stopping.done() else "draining"
        return "paused" if self.paused else "running"

    @property
    def problems(self) -> dict[str, str]:
        """Returns why the subscription is not ready, by reason; empty if it is ready."""
        return self._readiness.problems

    def pause_for(self, reason: str, paused: bool) -> None:
        """Starts no run and turns readiness red for a reason; False ends this."""
        self._readiness.pause_for(reason, paused)

    @property
    def waiting(self) -> int:
        """Returns the number of jobs that wait in memory for their next run."""
        return self._engine.applier.waiting if self._engine is not None else 0

    @property
    def running(self) -> int:
        """Returns the number of running handlers."""
        return self._engine.workers.running if self._engine is not None else 0

    @property
    def settled(self) -> bool:
        """Whether no handler runs and every message is settled."""
        engine = self._engine
        return self.in_flight.count == 0 and (engine is None or not engine.settler.busy)

    # Calls of the transport (`SubscriptionListener`). Nothing was received before `join` returned.

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Drops jobs that have not started; running ones may finish, then are cancelled."""
        engine = self._engine
        if engine is None:
            return
        revoked = set(shards)

        def moves(job: Job) -> bool:
            return job.delivery.shard in revoked

        unfinished = engine.unfinished
        for job in unfinished.take_unstarted(moves):
            unfinished.drop(job)
        engine.suspects.lose(moves, begun=False)
        deadline = asyncio.get_running_loop().time() + drain
        finished = await engine.workers.quiet(moves, drain)
        while finished and engine.applier.publishes(moves):
            engine.settler.flush()
            await asyncio.sleep(_POLL)
            finished = asyncio.get_running_loop().time() < deadline
        if not finished:
            unfinished.interrupt(moves)
            await engine.workers.quiet(moves, _CANCELLING)
        unfinished.end(
            unfinished.take_unstarted(moves) + engine.applier.take_published(moves), moves
        )
        engine.suspects.lose(moves)
        engine.settler.flush()

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Cancels the handlers of lost leases; their messages are not settled."""
        engine = self._engine
        if engine is None:
            return
        lost = {id(delivery) for delivery in deliveries}

        def is_lost(job: Job) -> bool:
            return id(job.delivery) in lost

        unfinished = engine.unfinished
        unfinished.end(
            unfinished.take_unstarted(is_lost) + engine.applier.take_published(is_lost), is_lost
        )
        engine.suspects.lose(is_lost)
        unfinished.interrupt(is_lost)

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Keeps the state of the subscription for readiness."""
        self._readiness.mark_unready(_TRANSPORT, None if healthy else detail)

    def suspects_waiting(self) -> None:
        """Asks the solo queue for messages that are to run alone."""
        if self._engine is None or self._intake is None:  # an earlier process left them there
            self._suspects_wait = True
        else:
            self._engine.suspects.ask()

    # The way from the broker to the lanes.

    async def _take(self, engine: Engine, subscription: Subscription) -> None:
        accept, refuse = engine.arrival.accept, engine.arrival.refuse
        while True:
            await self._resumed.wait()
            count, size = await self.in_flight.room()
            if self.paused:
                continue
            deliveries = await subscription.receive(count, size)
            if not deliveries:
                return
            self.in_flight.came(deliveries)
            for delivery in deliveries:
                try:
                    accept(delivery)
                except Exception as error:  # an error belongs to one message only
                    refuse(delivery, error)
            engine.workers.wake()

    def _intake_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, TransportError):
            self._readiness.mark_unready(_INTAKE, str(error))
            _log.error(
                "the subscription ended",
                extra={"subscription": self.settings.name, "error": str(error)},
            )
        elif error is not None:
            self._crashed(error)
        elif self._stopping is None:
            self._readiness.mark_unready(_INTAKE, "the subscription ended")
