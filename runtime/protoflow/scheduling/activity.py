"""What a subscription does, and what accounts for its doing nothing: what the watchdog sees."""

from __future__ import annotations

import asyncio

from protoflow.scheduling.in_flight import InFlight
from protoflow.scheduling.outcome_applier import OutcomeApplier
from protoflow.scheduling.readiness import Readiness
from protoflow.scheduling.settler import Settler
from protoflow.scheduling.suspects import Suspects
from protoflow.scheduling.watchdog import STALLED
from protoflow.scheduling.workers import Work, Workers
from protoflow.transport.interface import Availability, Subscription

#: Seconds for which a broker may think about how much waits.
_PATIENCE = 5.0


class Activity:
    """One subscription, as the watchdog sees it.

    Args:
        name: the subscription.
        readiness: its problems and gates.
    """

    def __init__(
        self,
        name: str,
        readiness: Readiness,
        subscription: Subscription,
        in_flight: InFlight,
        workers: Workers,
        applier: OutcomeApplier,
        settler: Settler,
        suspects: Suspects,
    ) -> None:
        self.name = name
        self._readiness = readiness
        self._subscription = subscription
        self._in_flight = in_flight
        self._workers = workers
        self._applier = applier
        self._settler = settler
        self._suspects = suspects

    def moved(self) -> int:
        """A number that grows whenever something is received or settled."""
        return self._in_flight.received + self._in_flight.ended

    def waits_for(self) -> str | None:
        """What accounts for nothing being handled; None: nothing does."""
        if self._readiness.problems.keys() - {STALLED}:
            return "a problem that is reported"
        if self._workers.running:
            return "a run"
        if self._readiness.gates.closed:
            return "a closed gate"
        if self._applier.waiting or len(self._suspects):
            return "a timer"
        if self._settler.busy or self._applier.dead_letters.busy:
            return "an answer of the broker"
        return None

    def unsettled(self) -> int:
        """How many messages are received and not settled."""
        return self._in_flight.count

    async def available(self) -> int | None:
        """How many messages the broker could hand to this member; None: not known."""
        subscription = self._subscription
        if not isinstance(subscription, Availability):
            return None
        async with asyncio.timeout(_PATIENCE):
            return await subscription.available()

    def unconfirmed(self, patience: float) -> str | None:
        """What the broker has not confirmed for so long."""
        return self._settler.problem(patience)

    def running_works(self) -> list[Work]:
        """What runs."""
        return self._workers.works()
