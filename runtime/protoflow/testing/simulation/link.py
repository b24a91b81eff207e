"""The connection between a process and the broker, with latencies and faults."""

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

#: Seconds after which an unanswered call fails.
_PATIENCE = 2.0
#: Seconds that are longer than a lease.
_SLOW = 45.0
#: Seconds for which no renewal arrives. Acknowledgements of progress have no answer, so a client
#: notices their loss late.
_UNHEARD = (45.0, 120.0)
#: The shortest time between two calls of one process, in seconds.
_APART = 1e-6
#: Returns whether the broker performs the entry of a call with this number.
Allowed = Callable[[int], bool]


class Host(Protocol):
    """The methods of the simulation that a link calls."""

    loop: SimulatedLoop
    choices: Choices
    faults: Faults
    trace: Trace
    broker: SimulatedBroker

    def crash(self, process: Process) -> None:
        """Kills a process now."""

    def lost(self, process: Process, deliveries: Sequence[Delivery]) -> None:
        """Notes that a process lost leases."""


class Link:
    """The connection of one process. Requests arrive in order, and answers do, too.

    Args:
        host: the simulation.
        process: the process that is connected.
        service: the service that the process runs; sites are named after it.
        flapped: called when the connection is lost.
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
        """Sends a request, which calls `apply` at the broker when it arrives.

        The future fails with a TransportError if the outcome is unknown.
        """
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
        # After the previous arrival, because timers that are due together run in any order.
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
        future.exception()  # marks the exception as retrieved, since the caller may be gone
