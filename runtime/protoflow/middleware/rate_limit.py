"""Limits the runs per second of each handler."""

from __future__ import annotations

from protoflow.context import Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome, Postpone
from protoflow.pipeline import HandlerSpec, Middleware, Next

#: Turns are reserved at most this many seconds ahead; a later run asks again.
_AHEAD = 1.0
#: Seconds after which an unused turn is forgotten.
_FORGOTTEN = 60.0


def rate_limit(rate: float, *, burst: int = 1) -> Middleware:
    """Delays runs beyond the rate, for each handler and process.

    A waiting message uses no worker and no attempt, and `timeout` does not count the wait.

    Args:
        rate: the number of runs per second.
        burst: the number of runs that may start at once after an idle time.
    """
    if rate <= 0 or burst < 1:
        raise ConfigError("rate_limit: rate must be positive and burst at least 1", code=MIDDLEWARE)

    def limit(next: Next, spec: HandlerSpec) -> Next:
        now = spec.clock.monotonic
        turns = _Turns(rate, burst)

        async def run(delivery: Delivery, context: Context) -> Outcome:
            wait = turns.wait(delivery, now())
            if wait > 0:
                return Postpone(wait, "the rate is reached")
            return await next(delivery, context)

        return run

    return limit


class _Turns:
    """The generic cell rate algorithm (ITU-T I.371): a single number represents the bucket."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._tolerance = (burst - 1) / rate
        self._due = float("-inf")
        #: The reserved turns of waiting messages, by the identity of their delivery, in order of
        #: time. The delivery is kept, so that its identity is not reused.
        self._given: dict[int, tuple[Delivery, float]] = {}

    def wait(self, delivery: Delivery, moment: float) -> float:
        """Returns the seconds that a run must wait; 0.0 if it may run now."""
        given = self._given.get(id(delivery))
        if given is not None:
            # A timer may fire slightly early.
            if given[1] - moment > self._interval / 100:
                return given[1] - moment
            del self._given[id(delivery)]
            return 0.0
        start = max(self._due, moment)
        wait = start - self._tolerance - moment
        if wait > max(_AHEAD, self._interval):
            return _AHEAD
        self._due = start + self._interval
        if wait <= 0:
            return 0.0
        self._forget(moment)
        self._given[id(delivery)] = delivery, moment + wait
        return wait

    def _forget(self, moment: float) -> None:
        """Removes the turns of messages that were lost in the meantime."""
        while self._given:
            first = next(iter(self._given))
            if self._given[first][1] > moment - _FORGOTTEN:
                return
            del self._given[first]
