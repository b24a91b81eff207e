"""The way from a process to the broker: latencies, and what goes wrong with calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from protoflow.errors import PublishError, TransportError
from protoflow.message import Delivery
from protoflow.testing.simulation.broker import SimulatedBroker
from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.faults import Faults
from protoflow.testing.simulation.loop import OUTSIDE, SimulatedLoop
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.trace import Trace

T = TypeVar("T")

#: Seconds after which a call without an answer is given up.
_PATIENCE = 2.0
#: Longer than a lease, in seconds.
_SLOW = 45.0
#: Seconds for which no renewal is heard: acknowledgements of progress have no answer, so a client
#: notices their loss late.
_UNHEARD = (45.0, 120.0)
#: Seconds between calls of one process, at least.
_APART = 1e-6
#: Whether an entry of a call, by its number, is done.
Allowed = Callable[[int], bool]


class Host(Protocol):
    """The simulation, as a link needs it."""

    loop: SimulatedLoop
    choices: Choices
    faults: Faults
    trace: Trace
    broker: SimulatedBroker

    def crash(self, process: Process) -> None:
        """The process is killed now."""

    def lost(self, process: Process, deliveries: Sequence[Delivery]) -> None:
        """A process lost leases."""


class Link:
    """The connection of one process. Requests arrive in order, and so do their answers.

    Args:
        host: the simulation.
        process: whose connection it is.
        service: the service that it runs; names the sites.
        flapped: called when the connection ended under it.
    """

    def __init__(
        self, host: Host, process: Process, service: str, flapped: Callable[[], None]
    ) -> None:
        self.process = process
        self.service = service
        self._host = host
        self._flapped = flapped
        self._arrival = self._answer = 0.0
        self._unheard: dict[str, float] = {}

    def call(
        self, kind: str, apply: Callable[[Allowed], T], message: str = "", size: int = 1
    ) -> asyncio.Future[T]:
        """Sends a request; `apply` is called at the broker when it arrives, if it does. The
        future fails with a TransportError where the answer is unknown."""
        host, loop = self._host, self._host.loop
        future: asyncio.Future[T] = loop.create_future()
        site = f"{self.service}.{kind}"
        if not self.process.alive:
            return future
        fault = host.faults.at(site)
        name = fault.kind if fault else ""
        if fault is not None:
            host.trace.add(loop.now, str(self.process), f"fault {name}", message, str(fault))
        if name == "crash-before":
            host.crash(self.process)
            return future
        # Later than the one before: timers that are due at once are run in any order.
        self._arrival = max(self._arrival + _APART, loop.now + host.choices.latency(site))
        loop.call_at(self._arrival, self._arrived, future, site, apply, name, size, context=OUTSIDE)
        return future

    def _arrived(
        self, future: asyncio.Future[Any], site: str, apply: Callable[[Allowed], Any], fault: str,
        size: int,
    ) -> None:  # fmt: skip
        host, loop = self._host, self._host.loop
        if fault == "unheard":
            self._unheard[site] = loop.now + host.choices.between(f"{site}.unheard", *_UNHEARD)
        if host.broker.down or fault == "refused" or loop.now < self._unheard.get(site, 0.0):
            if fault == "crash-after":
                host.crash(self.process)
            self._later(future, None, PublishError("the broker does not answer"), 0.05)
            return
        done = size
        if fault == "partial":
            done = int(host.choices.number(f"{site}.partial") * size)
        elif fault == "flap":
            done = size if host.choices.number(f"{site}.flap") < 0.5 else 0
        try:
            result, error = apply(lambda index: index < done), None
        except TransportError as raised:
            result, error = None, raised
        if fault == "crash-after":
            host.crash(self.process)
        elif fault == "lost":
            self._later(future, None, PublishError("the answer was lost"), _PATIENCE)
        elif fault == "slow":
            self._later(future, result, error, _SLOW)
        elif fault == "flap":
            self._later(future, None, PublishError("the connection was lost"), 0.001)
            self._flapped()
        else:
            latency = host.choices.latency(f"{site}.answer")
            self._answer = max(self._answer + _APART, loop.now + latency)
            self._later(future, result, error, self._answer - loop.now)

    def _later(
        self, future: asyncio.Future[Any], result: Any, error: Exception | None, seconds: float
    ) -> None:
        self._host.loop.call_later(seconds, _resolve, future, result, error, context=OUTSIDE)


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # its reader may be gone
