"""Stops consuming while what a handler calls is broken."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable

from protoflow.context import Context
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import DeadLetter, Outcome, Skip
from protoflow.pipeline import HandlerSpec, Next

_log = logging.getLogger("protoflow.circuit")


class CircuitState(enum.StrEnum):
    """How a circuit is."""

    #: Everything runs.
    CLOSED = "closed"
    #: Nothing runs; the subscription is paused and readiness is red.
    OPEN = "open"
    #: A few runs try whether it works again.
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """A middleware: a circuit for each handler.

    When enough of the last runs failed, the subscription of the handler pauses; messages stay
    unsettled, in turn, and lose no attempt. After a while a few runs are let through: if they
    succeed all goes on, else it pauses again. Outcomes that a handler decides (dead letter,
    skip) are no failures of what it calls. Place it next to the handler.

    Args:
        failure_rate: the share of failed runs that opens the circuit.
        window: how many runs are looked at; it opens only when so many were seen.
        open_for: seconds until the probes.
        probes: how many runs must succeed then; so many run at once.
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
            raise ConfigError("circuit_breaker: rate in (0, 1], the others positive")
        self.failure_rate = failure_rate
        self.window = window
        self.open_for = open_for
        self.probes = probes
        self.on_change = on_change
        self._circuits: dict[str, _Circuit] = {}

    def __call__(self, next: Next, spec: HandlerSpec) -> Next:
        """The handler in its circuit."""
        circuit = self._circuits[spec.name] = _Circuit(self, spec)

        async def run(delivery: Delivery, context: Context) -> Outcome:
            await circuit.enter()
            try:
                outcome = await next(delivery, context)
            except (DeadLetter, Skip):
                circuit.left(True)
                raise
            except Exception:
                circuit.left(False)
                raise
            except BaseException:  # cancelled: tells nothing
                circuit.left(None)
                raise
            circuit.left(True)
            return outcome

        return run

    @property
    def states(self) -> dict[str, CircuitState]:
        """The state of every handler's circuit."""
        return {name: circuit.state for name, circuit in self._circuits.items()}


class _Circuit:
    def __init__(self, settings: CircuitBreaker, spec: HandlerSpec) -> None:
        self.state = CircuitState.CLOSED
        self._settings = settings
        self._spec = spec
        self._results: deque[bool] = deque(maxlen=settings.window)
        self._probing = 0
        self._passed = 0
        self._changed: asyncio.Future[None] | None = None

    async def enter(self) -> None:
        """Waits until a run may start."""
        while self.state is not CircuitState.CLOSED:
            half_open = self.state is CircuitState.HALF_OPEN
            if half_open and self._probing + self._passed < self._settings.probes:
                break
            # Runs that had started before the gate closed wait here.
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
        self._probing += 1

    def left(self, good: bool | None) -> None:
        """A run ended."""
        self._probing = max(0, self._probing - 1)
        if self.state is CircuitState.CLOSED and good is not None:
            self._results.append(good)
            full = len(self._results) == self._settings.window
            if full and self._results.count(False) >= self._settings.failure_rate * len(
                self._results
            ):
                self._open()
        elif self.state is CircuitState.HALF_OPEN:
            if good is False:
                self._open()
            elif good:
                self._passed += 1
                if self._passed >= self._settings.probes:
                    self._results.clear()
                    self._become(CircuitState.CLOSED)
                return
            self._wake()

    def _open(self) -> None:
        self._become(CircuitState.OPEN)
        asyncio.get_running_loop().call_later(self._settings.open_for, self._half_open)

    def _half_open(self) -> None:
        self._probing = self._passed = 0
        self._become(CircuitState.HALF_OPEN)

    def _become(self, state: CircuitState) -> None:
        self.state = state
        name = self._spec.name
        level = logging.WARNING if state is CircuitState.OPEN else logging.INFO
        _log.log(level, "%s: circuit %s", name, state, extra={"handler": name, "state": str(state)})
        self._spec.hold(f"the circuit of {name} is open", state is CircuitState.OPEN)
        if self._settings.on_change is not None:
            self._settings.on_change(name, state)
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
