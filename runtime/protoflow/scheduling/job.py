"""A delivery on its way through the scheduler, and the handler that it is for."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from protoflow.message import Delivery, Message, SettleResult
from protoflow.pipeline import HandlerSpec, Next
from protoflow.registrations.registration import Registration
from protoflow.scheduling.batching import Gatherer


class Route:
    """A handler with its compiled chain.

    Attributes:
        spec: what is known of the handler.
        registration: what was registered.
        run: the chain around the handler.
        gatherer: gathers batches; None for handlers of single messages.
        suspect_at: from so many hand-outs on a message is taken for a process killer.
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
        delivery: as the broker handed it over; settlements and letters are made of it.
        message: the message that the handler sees, unwrapped from a structured envelope.
        route: who handles it.
        lane: what it is in turn with; None is nothing.
        single: of a batch that failed as a whole: it is handled by itself.
        lost: its lease or shard is lost: it is not settled any more.
        unchecked: it must be looked at when it has its turn, and maybe is not to run: a
            tombstone, a suspect, or a retry that is not due.
        after: what is done when its settlement has an answer; True: who gave it goes on with
            the job, also after UNKNOWN.
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
