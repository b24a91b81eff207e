"""A job: a delivery in the scheduler, with its handler."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from protoflow.message import Delivery, Message, SettleResult
from protoflow.pipeline import HandlerSpec, Next
from protoflow.registrations.registration import Registration
from protoflow.scheduling.batching import Gatherer


class Route:
    """A handler with its compiled chain.

    Attributes:
        spec: the specification of the handler.
        registration: the registration of the handler.
        run: the chain around the handler.
        gatherer: gathers batches; None for handlers of single messages.
        suspect_at: a message that was handed out this often becomes a suspect.
    """

    __slots__ = ("gatherer", "registration", "run", "spec", "suspect_at")

    def __init__(self, spec: HandlerSpec, registration: Registration, run: Next) -> None:
        self.spec = spec
        self.registration = registration
        self.run = run
        self.gatherer: Gatherer[Job] | None = None
        margin = spec.config.max_deliveries_margin
        self.suspect_at = spec.policy.retry.max_attempts + margin + 1


class Job:
    """One delivery from its arrival to its settlement.

    Attributes:
        delivery: the delivery from the broker; settlements and dead letters are made from it.
        message: the message that the handler sees, unwrapped from a structured envelope.
        route: the route to its handler.
        lane: the lane that keeps its order; None if it has no order.
        single: whether it is handled by itself, because its batch failed as a whole.
        lost: whether its lease or shard is lost; then it is not settled.
        unchecked: whether it must be checked at its turn, because it is a tombstone, a suspect, or
            a retry that may not be due.
        after: called with the answer to its settlement. If it returns True, the owner of this
            callback continues with the job, even if the answer is UNKNOWN.
        confirmed: called when its outputs are confirmed.
    """

    __slots__ = (
        "after", "confirmed", "delivery", "lane", "lost", "message", "route", "single",
        "unchecked",
    )  # fmt: skip

    def __init__(
        self, delivery: Delivery, message: Message, route: Route, lane: Hashable | None
    ) -> None:
        self.delivery = delivery
        self.message = message
        self.route = route
        self.lane = lane
        self.single = False
        self.lost = False
        self.unchecked = False
        self.after: Callable[[SettleResult], bool] | None = None
        self.confirmed: Callable[[], None] | None = None
