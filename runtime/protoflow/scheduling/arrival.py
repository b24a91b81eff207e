"""What happens to a delivery when it arrives: unwrapped, routed, checked, put in its lane."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Hashable

from protoflow import wire
from protoflow.codecs.cloudevents import is_structured, unwrap, without_content_type
from protoflow.codecs.printable import printable
from protoflow.contract.spec import Ordering, UnhandledTypes
from protoflow.errors import DecodeError
from protoflow.failure_policy import Undecodable
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.dead_letters import failures_of, wait_of
from protoflow.scheduling.job import Job, Route
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import Carrier
from protoflow.scheduling.router import Router
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.workers import Workers
from protoflow.transport.interface import SubscriptionSettings

_log = logging.getLogger("protoflow.scheduler")

#: How many unknown types are remembered, to warn of each only once.
_REMEMBERED_TYPES = 100
#: A retry that is due in less is due now.
_SOON = 0.001


class Unhandled(DeadLetter):
    """Given up because nobody handles its type."""

    category = "unhandled"


class Turn(enum.Enum):
    """What a job does that has its turn for the first time."""

    #: It starts.
    BEGINS = 0
    #: It waits, and keeps its turn.
    WAITS = 1
    #: It is settled without a run.
    ENDS = 2


class Arrival:
    """Takes the deliveries of one subscription."""

    def __init__(
        self,
        router: Router,
        lanes: Lanes,
        settings: SubscriptionSettings,
        carrier: Carrier,
        suspects: Suspects,
        workers: Workers,
        begin: Callable[[Job], None],
        leave: Callable[[Job], None],
    ) -> None:
        self._router = router
        self._by_type = router.by_type
        self._lanes = lanes
        self._per_key = settings.ordering is Ordering.PER_KEY
        self._ordered = settings.ordering is not Ordering.NONE
        self._group = settings.group
        self._name = settings.name
        self._seen: set[str] = set()
        self._carrier = carrier
        self._suspects = suspects
        self._begin = begin
        self._leave = leave
        self._put = workers.put

    def accept(self, delivery: Delivery) -> None:
        """Takes one delivery. Whatever is wrong with it, it ends settled."""
        message = delivery.message
        metadata = message.metadata
        route: Route | None = None
        if metadata.get(wire.CONTENT_TYPE) == wire.PROTOBUF and wire.GO_SCHEMA not in metadata:
            route = self._by_type.get(metadata.get(wire.CE_TYPE, ""))  # a plain event
        if route is None or delivery.unreadable is not None:
            found = self._find(delivery)
            if found is None:
                return
            message, route = found
        if self._per_key:
            lane: Hashable = message.key or None  # without key it is a lane of its own, so in none
        else:
            lane = delivery.shard if self._ordered else None
        job = Job(delivery, message, route, lane)
        if (
            delivery.own_place
            or message.payload is None
            or delivery.deliveries >= route.suspect_at
            or delivery.suspect
        ):
            job.unchecked = True
            if not delivery.failures:
                delivery.failures, delivery.first_failure = failures_of(delivery, self._group)
        if lane is None or self._lanes.enter(job):
            if job.unchecked:
                self._first_turn(job)
            elif route.gatherer is None:
                self._put(job)
            else:
                self._begin(job)

    def refuse(self, delivery: Delivery, error: Exception) -> None:
        """Gives up a delivery that made `accept` raise, which nobody foresaw."""
        self._carrier.failed(self._orphan(delivery, delivery.message), error)

    def job_alone(self, delivery: Delivery) -> Job | None:
        """A job for a delivery that is to run alone at once, in no lane; None: it is settled."""
        try:
            found = self._find(delivery)
        except Exception as error:
            self.refuse(delivery, error)
            return None
        if found is None:
            return None
        message, route = found
        job = Job(delivery, message, route, None)
        job.single = route.gatherer is not None
        if not delivery.failures:
            delivery.failures, delivery.first_failure = failures_of(delivery, self._group)
        return job

    def check(self, job: Job) -> Turn:
        """The job has its turn for the first time, and maybe should not run now."""
        job.unchecked = False
        route = job.route
        if job.message.payload is None and not route.registration.tombstones:
            route.spec.stats.tombstones += 1
            self._carrier.settle(job)
            return Turn.ENDS
        if self._early(job):
            return Turn.WAITS
        if self.suspected(job):
            job.single = route.gatherer is not None
            self._suspects.put(job)
            return Turn.WAITS
        return Turn.BEGINS

    def suspected(self, job: Job) -> bool:
        """Whether the job may kill the process: every run of it is alone."""
        return job.delivery.suspect or job.delivery.deliveries >= job.route.suspect_at

    def turn(self, job: Job) -> Turn:
        """The same as `check`; what goes wrong is this job's failure, and no other's."""
        try:
            return self.check(job)
        except Exception as error:
            self._carrier.failed(job, error)
            return Turn.WAITS  # until its letter is confirmed

    def _first_turn(self, job: Job) -> None:
        turn = self.turn(job)
        if turn is Turn.BEGINS:
            self._begin(job)
        elif turn is Turn.ENDS and job.lane is not None:
            self._leave(job)

    def _find(self, delivery: Delivery) -> tuple[Message, Route] | None:
        """The message without its envelope, and its route. None: it is given up or skipped."""
        message = delivery.message
        if delivery.unreadable is not None:
            _log.error(
                "%s: a message at %s/%s cannot be read: %s", self._name, delivery.shard,
                delivery.position, printable(delivery.unreadable),
            )  # fmt: skip
            self._give_up(delivery, message, Undecodable(delivery.unreadable))
            return None
        try:
            message = _opened(message)
            route = self._router.find(message)
        except DecodeError as error:
            self._give_up(delivery, message, Undecodable(str(error)))
            return None
        if route is None:
            self._unhandled(delivery, message)
            return None
        return message, route

    def _early(self, job: Job) -> bool:
        """Whether a retry came before it is due, as from a rung of the ladder."""
        spec = job.route.spec
        wait = wait_of(job.delivery, self._group, spec.clock.now())
        if wait <= _SOON:
            return False
        if wait <= spec.config.retry_in_place:
            self._carrier.hold(job, wait)
        else:
            self._carrier.defer(job, wait)
        return True

    def _unhandled(self, delivery: Delivery, message: Message) -> None:
        kind = self._router.type_of(message) or ""
        spec = self._router.first.spec
        spec.stats.unhandled += 1
        if kind not in self._seen and len(self._seen) < _REMEMBERED_TYPES:
            self._seen.add(kind[:1000])
            _log.warning("%s: nobody handles the type %s", self._name, printable(kind))
        if spec.policy.unhandled is UnhandledTypes.DEAD_LETTER:
            text = f"nobody handles the type {printable(kind)}"
            self._give_up(delivery, message, Unhandled(text))
        else:
            self._carrier.settle(self._orphan(delivery, message))

    def _give_up(self, delivery: Delivery, message: Message, outcome: DeadLetter) -> None:
        self._carrier.give_up(self._orphan(delivery, message), outcome)

    def _orphan(self, delivery: Delivery, message: Message) -> Job:
        """A job that no handler sees, so it is in no lane."""
        return Job(delivery, message, self._router.first, None)


def _opened(message: Message) -> Message:
    """The message within an envelope, if it is one. Raises DecodeError."""
    content_type = message.metadata.get(wire.CONTENT_TYPE)
    if content_type is None:
        return without_content_type(message)
    return unwrap(message) if is_structured(content_type) else message
