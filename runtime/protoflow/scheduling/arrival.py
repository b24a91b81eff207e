"""Arrival: a delivery is unwrapped, routed and put into its lane."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING

from protoflow import wire
from protoflow.codecs.cloudevents import is_structured, unwrap, without_content_type
from protoflow.codecs.printable import printable
from protoflow.contract.spec import Ordering, UnhandledTypes
from protoflow.errors import DecodeError
from protoflow.failure_policy import Undecodable
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.hop_state import failures_of
from protoflow.scheduling.job import Job, Route
from protoflow.scheduling.lanes import Lanes
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.router import Router
from protoflow.scheduling.source_labels import SourceLabels
from protoflow.scheduling.turns import Turns
from protoflow.scheduling.workers import Workers
from protoflow.transport.interface import SubscriptionSettings

if TYPE_CHECKING:
    from protoflow.scheduling.frames import Frames

_log = logging.getLogger("protoflow.scheduler")

#: This many unknown types are remembered, so that each is logged only once.
_REMEMBERED_TYPES = 100


class Unhandled(DeadLetter):
    """The message is given up because no handler takes its type."""

    category = "unhandled"


class Arrival:
    """Makes jobs from the deliveries of one subscription."""

    def __init__(
        self,
        router: Router,
        lanes: Lanes,
        settings: SubscriptionSettings,
        applier: OutcomeApplier,
        workers: Workers,
        turns: Turns,
        frames: Frames | None = None,
    ) -> None:
        self._router = router
        self._frames = frames
        # With frames, no message takes the short way of plain events.
        self._by_type = router.by_type if frames is None else {}
        self._lanes = lanes
        self._per_key = settings.ordering is Ordering.PER_KEY
        self._ordered = settings.ordering is not Ordering.NONE
        self._group = settings.group
        self._name = settings.name
        source = settings.source
        self._labels = None if source is None else SourceLabels(source, router)
        self._seen: set[str] = set()
        self._applier = applier
        self._turns = turns
        self._put = workers.put

    def accept(self, delivery: Delivery) -> None:
        """Makes a job of a delivery. A delivery with an error is always settled."""
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
            # a job without a key needs no order, so it is in no lane
            lane: Hashable = message.key or None
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
                self._turns.begin_checked(job)
            elif route.gatherer is None:
                self._put(job)
            else:
                self._turns.begin(job)

    def refuse(self, delivery: Delivery, error: Exception) -> None:
        """Dead-letters a delivery for which `accept` raised an error."""
        self._applier.failed(self._orphan(delivery, delivery.message), error)

    def job_alone(self, delivery: Delivery) -> Job | None:
        """Returns a job to run alone, in no lane; None if the delivery was settled."""
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

    def run_again(self, job: Job) -> None:
        """Makes a job ready after its wait. If its frame was unknown, it arrives again, in its
        lane."""
        if self._frames is not None and job.route is self._frames.pending:
            try:
                found = self._find(job.delivery)
            except Exception as error:
                self.refuse(job.delivery, error)
                found = None
            if found is None:  # it was settled in another way
                if job.lane is not None:
                    self._turns.end(job)
                return
            job.message, job.route = found
        self._turns.run_again(job)

    def _find(self, delivery: Delivery) -> tuple[Message, Route] | None:
        """Returns the message without its envelope, and its route; None if it was settled."""
        message = delivery.message
        if delivery.unreadable is not None:
            _log.error(
                "a message was not readable",
                extra={
                    "subscription": self._name,
                    "partition": str(delivery.shard),
                    "position": str(delivery.position),
                    "error": printable(delivery.unreadable),
                },
            )
            self._give_up(delivery, message, Undecodable(delivery.unreadable))
            return None
        try:
            if self._frames is not None:
                opened = self._frames.opened(message)
                if opened is None:
                    return message, self._frames.pending
                message = opened
            message = _unwrapped(message)
            if self._labels is not None:
                message = self._labels.apply(message)
                if message.payload is delivery.message.payload:  # no envelope
                    delivery.message = message  # its retries and dead letters have them, too
            route = self._router.find(message)
        except DecodeError as error:
            self._give_up(delivery, message, Undecodable(str(error)))
            return None
        if route is None:
            self._unhandled(delivery, message)
            return None
        return message, route

    def _unhandled(self, delivery: Delivery, message: Message) -> None:
        kind = self._router.type_of(message) or ""
        spec = self._router.first.spec
        spec.stats.unhandled += 1
        if kind not in self._seen and len(self._seen) < _REMEMBERED_TYPES:
            self._seen.add(kind[:1000])
            _log.warning(
                "a message had a type without a handler",
                extra={"subscription": self._name, "type": printable(kind)},
            )
        if spec.policy.unhandled is UnhandledTypes.DEAD_LETTER:
            text = f"no handler takes the type {printable(kind)}"
            self._give_up(delivery, message, Unhandled(text))
        else:
            self._applier.settle(self._orphan(delivery, message))

    def _give_up(self, delivery: Delivery, message: Message, outcome: DeadLetter) -> None:
        self._applier.give_up(self._orphan(delivery, message), outcome)

    def _orphan(self, delivery: Delivery, message: Message) -> Job:
        """Returns a job without a handler; it is in no lane."""
        return Job(delivery, message, self._router.first, None)


def _unwrapped(message: Message) -> Message:
    """Returns the message in an envelope, or the message itself. Raises DecodeError."""
    content_type = message.metadata.get(wire.CONTENT_TYPE)
    if content_type is None:
        return without_content_type(message)
    return unwrap(message) if is_structured(content_type) else message
