"""The activity of a subscription, as the watchdog checks it."""

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

#: The broker may need this many seconds to count the waiting messages.
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
        """Returns a number that grows whenever a message is received or settled."""
        return self._in_flight.received + self._in_flight.ended

    def waits_for(self) -> str | None:
        """Returns the reason why no message is handled; None if there is no reason."""
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
        """Returns the number of messages that are received and not settled."""
        return self._in_flight.count

    async def available(self) -> int | None:
        """Returns how many messages the broker could deliver to this member; None if unknown."""
        subscription = self._subscription
        if not isinstance(subscription, Availability):
            return None
        async with asyncio.timeout(_PATIENCE):
            return await subscription.available()

    def unconfirmed(self, patience: float) -> str | None:
        """Describes an answer that the broker has owed for too long; None if there is none."""
        return self._settler.problem(patience)

    def running_works(self) -> list[Work]:
        """Returns the work that is running."""
        return self._workers.works()
