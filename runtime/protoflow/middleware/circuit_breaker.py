"""Stops consuming while a dependency of a handler is broken."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable

from protoflow.context import Context
from protoflow.error_codes import MIDDLEWARE
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter, Outcome, Postpone, Retry, Skip
from protoflow.pipeline import HandlerSpec, Next

_log = logging.getLogger("protoflow.circuit")

#: Seconds after which a waiting message checks again whether the probes have ended.
_AGAIN = 0.25


class CircuitState(enum.StrEnum):
    """The state of a circuit."""

    #: All runs start.
    CLOSED = "closed"
    #: No run starts; the subscription is paused and readiness is red.
    OPEN = "open"
    #: A few runs probe whether the dependency works again.
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """A middleware with a circuit for each handler.

    If too many of the last runs failed, the subscription of the handler pauses. Its messages wait
    in order and lose no attempt. After `open_for` seconds a few runs are allowed. If they succeed,
    the circuit closes, otherwise it opens again. A waiting message does not run, so neither
    `timeout` nor the attempts count the wait. If the handler raises `DeadLetter` or `Skip`, the run
    does not count as a failure of the dependency. Place it next to the handler.

    Args:
        failure_rate: the share of failed runs that opens the circuit.
        window: the number of last runs to evaluate; the circuit opens only after this many runs.
        open_for: seconds until the probes.
        probes: the number of runs that must then succeed; this many run at once.
        on_change: called with handler and new state.
    """

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        window: int = 20,
        open_for: float = 30.0,
        probes: int = 1,
        on_change: Callable[[str, CircuitState], None] | None = None,
    ) -> None:
        if not 0 < failure_rate <= 1 or window < 1 or open_for <= 0 or probes < 1:
            raise ConfigError(
                "circuit_breaker: failure_rate must be from 0 to 1; all other arguments must be "
                "positive",
                code=MIDDLEWARE,
            )
        self.failure_rate = failure_rate
        self.window = window
        self.open_for = open_for
        self.probes = probes
        self.on_change = on_change
        self._circuits: dict[str, _Circuit] = {}

    def __call__(self, next: Next, spec: HandlerSpec) -> Next:
        """Returns the handler with its circuit."""
        circuit = self._circuits[spec.name] = _Circuit(self, spec)
        # While the circuit is open, the subscription starts no run, even after a short wait.
        again = min(_AGAIN, self.open_for)

        async def run(delivery: Delivery, context: Context) -> Outcome:
            era = circuit.enter()
            if era is None:
                return Postpone(again, "the circuit is open")
            try:
                outcome = await next(delivery, context)
            except (DeadLetter, Skip):
                circuit.left(era, True)
                raise
            except Exception:
                circuit.left(era, False)
                raise
            except BaseException:  # a cancelled run is not counted
                circuit.left(era, None)
                raise
            circuit.left(era, _good(outcome))
            return outcome

        return run

    @property
    def states(self) -> dict[str, CircuitState]:
        """The state of every handler's circuit."""
        return {name: circuit.state for name, circuit in self._circuits.items()}


def _good(outcome: Outcome) -> bool | None:
    """Whether the outcome of a run shows that its dependency works. If the circuit is outside of
    retry and poison_queue, failures are already outcomes here."""
    if type(outcome) is Postpone:  # an inner middleware returned it
        return None
    return not isinstance(outcome, Retry) and outcome.__cause__ is None


class _Circuit:
    def __init__(self, settings: CircuitBreaker, spec: HandlerSpec) -> None:
        self.state = CircuitState.CLOSED
        self._settings = settings
        self._spec = spec
        self._results: deque[bool] = deque(maxlen=settings.window)
        self._probing = 0
        self._passed = 0
        # A run that ends in a later state than it started in is not counted.
        self._era = 0

    def enter(self) -> int | None:
        """Returns the argument for `left` at the end of the run; None if it may not start."""
        if self.state is CircuitState.OPEN:  # the run had started before the gate closed
            return None
        if self.state is CircuitState.HALF_OPEN:
            if self._probing + self._passed >= self._settings.probes:
                return None
            self._probing += 1
        return self._era

    def left(self, era: int, good: bool | None) -> None:
        """Counts the end of a run."""
        if era != self._era:
            return
        if self.state is CircuitState.HALF_OPEN:
            self._probing -= 1
            self._probed(good)
        elif good is not None:
            results = self._results
            results.append(good)
            if len(results) == self._settings.window and results.count(
                False
            ) >= self._settings.failure_rate * len(results):
                self._open()

    def _probed(self, good: bool | None) -> None:
        if good is False:
            self._open()
        elif good:
            self._passed += 1
            if self._passed >= self._settings.probes:
                self._results.clear()
                self._become(CircuitState.CLOSED)

    def _open(self) -> None:
        asyncio.get_running_loop().call_later(self._settings.open_for, self._half_open)
        self._become(CircuitState.OPEN)

    def _half_open(self) -> None:
        self._probing = self._passed = 0
        self._become(CircuitState.HALF_OPEN)

    def _become(self, state: CircuitState) -> None:
        self.state = state
        self._era += 1
        name = self._spec.name
        level = logging.WARNING if state is CircuitState.OPEN else logging.INFO
        _log.log(level, "the circuit changed", extra={"handler": name, "state": str(state)})
        self._spec.pause_for(f"the circuit of {name} is open", state is CircuitState.OPEN)
        if self._settings.on_change is None:
            return
        try:
            self._settings.on_change(name, state)
        except Exception as error:  # an error in a callback must not affect a message
            _log.warning("on_change failed", extra={"handler": name, "error": type(error).__name__})
