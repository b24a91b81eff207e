"""What happens to a delivery when it arrives: unwrapped, routed, checked, put in its lane."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from protoflow import wire
from protoflow.codecs.cloudevents import is_structured, unwrap, without_content_type
from protoflow.errors import DecodeError
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter
from protoflow.retrying import Undecodable
from protoflow.scheduling.carrier import Carrier
from protoflow.scheduling.job import Job, Lanes
from protoflow.scheduling.letters import due_of, failures_of
from protoflow.scheduling.routes import Router
from protoflow.scheduling.workers import Workers
from protoflow.spec import Ordering, UnhandledTypes
from protoflow.transport import SubscriptionSettings

_log = logging.getLogger("protoflow.scheduler")

#: How many unknown types are remembered, to warn of each only once.
_REMEMBERED_TYPES = 100
#: A retry that is due in less is due now.
_SOON = 0.001


class RedeliveryLimit(DeadLetter):
    """Given up because the message seems to kill the process."""

    category = "redelivery limit"


class Unhandled(DeadLetter):
    """Given up because nobody handles its type."""

    category = "unhandled"


class Arrival:
    """Takes the deliveries of one subscription."""

    def __init__(self, router: Router, lanes: Lanes, settings: SubscriptionSettings) -> None:
        self._router = router
        self._by_type = router.by_type
        self._lanes = lanes
        self._per_key = settings.ordering is Ordering.PER_KEY
        self._ordered = settings.ordering is not Ordering.NONE
        self._group = settings.group
        self._name = settings.name
        self._seen: set[str] = set()
        self._carrier: Carrier
        self._begin: Callable[[Job], None]
        self._workers: Workers
        self._put: Callable[[Job], None]

    def bind(self, carrier: Carrier, begin: Callable[[Job], None], workers: Workers) -> None:
        """Names those that the deliveries go on to."""
        self._carrier = carrier
        self._begin = begin
        self._workers = workers
        self._put = workers.put

    def accept(self, delivery: Delivery) -> None:
        """Takes one delivery. Whatever is wrong with it, it ends settled."""
        message = delivery.message
        metadata = message.metadata
        content_type = metadata.get(wire.CONTENT_TYPE)
        if content_type != wire.PROTOBUF:  # a plain event needs no second look
            try:
                message = _opened(message, content_type)
            except DecodeError as error:
                self._refuse(delivery, message, Undecodable(str(error)))
                return
        kind = message.metadata.get(wire.CE_TYPE)
        route = self._by_type.get(kind) if kind else None
        if route is None or wire.GO_SCHEMA in metadata:
            try:
                route = self._router.find(message)
            except DecodeError as error:
                self._refuse(delivery, message, Undecodable(str(error)))
                return
            if route is None:
                self._unhandled(delivery, message)
                return
        if self._per_key:
            lane: Hashable = message.key or None  # without key it is a lane of its own, so in none
        else:
            lane = delivery.shard if self._ordered else None
        job = Job(delivery, message, route, lane)
        if wire.PF_GROUP in metadata and not delivery.failures:
            delivery.failures, delivery.first_failure = failures_of(delivery.message, self._group)
        if lane is None or self._lanes.enter(job):
            if (
                message.payload is None
                or delivery.deliveries >= route.suspect_at
                or wire.PF_DUE in metadata
            ):
                self._look_twice(job)
            elif route.gatherer is None:
                self._put(job)
            else:
                self._begin(job)

    def _look_twice(self, job: Job) -> None:
        """The job has its turn for the first time, and maybe should not run now."""
        delivery, route = job.delivery, job.route
        if job.message.payload is None and not route.registration.tombstones:
            route.spec.stats.tombstones += 1
            self._carrier.acknowledge(job)
        elif delivery.deliveries >= route.suspect_at:
            self._suspect(job)
        elif wire.PF_DUE not in delivery.message.metadata or not self._early(job):
            self._begin(job)

    def _early(self, job: Job) -> bool:
        """Whether a retry came before it is due, as from a rung of the ladder."""
        spec = job.route.spec
        wait = due_of(job.delivery.message, self._group) - spec.clock.now()
        if wait <= _SOON:
            return False
        if wait <= spec.config.retry_in_place:
            self._carrier.hold(job, wait)
        else:
            self._carrier.defer(job, wait)
        return True

    def _suspect(self, job: Job) -> None:
        """Handed out too often: run alone twice more, then given up.

        The broker counts for all that the dead process held, so the second time goes
        backwards: only the killer is in front of nobody who could still be handled.
        """
        delivery = job.delivery
        beyond = delivery.deliveries - job.route.suspect_at
        if beyond > 1:
            text = f"handed out {delivery.deliveries} times without an end"
            self._carrier.bury(job, RedeliveryLimit(text))
        else:
            batched = job.route.gatherer is not None
            job.single = batched
            self._workers.put_alone([job] if batched else job, backwards=beyond == 1)

    def _unhandled(self, delivery: Delivery, message: Message) -> None:
        kind = self._router.type_of(message) or ""
        spec = self._router.first.spec
        spec.stats.unhandled += 1
        if kind not in self._seen and len(self._seen) < _REMEMBERED_TYPES:
            self._seen.add(kind)
            _log.warning("%s: nobody handles the type %.200s", self._name, kind)
        if spec.policy.unhandled is UnhandledTypes.DEAD_LETTER:
            self._refuse(delivery, message, Unhandled(f"nobody handles the type {kind[:200]}"))
        else:
            self._carrier.acknowledge(self._orphan(delivery, message))

    def _refuse(self, delivery: Delivery, message: Message, outcome: DeadLetter) -> None:
        self._carrier.bury(self._orphan(delivery, message), outcome)

    def _orphan(self, delivery: Delivery, message: Message) -> Job:
        """A job that no handler sees, so it is in no lane."""
        return Job(delivery, message, self._router.first, None)


def _opened(message: Message, content_type: str | None) -> Message:
    """The message within an envelope, if it is one. Raises DecodeError."""
    if content_type is None:
        return without_content_type(message)
    return unwrap(message) if is_structured(content_type) else message
