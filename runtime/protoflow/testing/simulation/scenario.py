"""The scenario and the invariants of a simulation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, overload

Publish = Callable[[Any], Awaitable[None]]  # Any: a Simulation, whose module imports this one
Check = Callable[[Any], object]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The messages that a simulation publishes, and the number of faults.

    Attributes:
        publish: publishes through `simulation.publisher`; returns after the last message.
        faults: the number of planned faults; the first five always happen.
        crashes: the number of planned crashes; two always happen.
        duration: the seconds in which faults happen. After the last one, all work must end.
        patience: the seconds after the last fault in which all work must end.
    """

    publish: Publish
    faults: int = 9
    crashes: int = 4
    duration: float = 30.0
    patience: float = 1800.0


@dataclass(frozen=True)
class Invariant:
    """A check of a simulation.

    Attributes:
        check: raises AssertionError if the invariant is violated.
        name: its name in reports.
        every_step: whether it is checked after every run of a handler, and not only at the end.
    """

    check: Check
    name: str
    every_step: bool = False


@overload
def invariant(check: Check) -> Invariant: ...
@overload
def invariant(*, every_step: bool = False) -> Callable[[Check], Invariant]: ...
def invariant(
    check: Check | None = None, *, every_step: bool = False
) -> Invariant | Callable[[Check], Invariant]:
    """Makes an invariant of a function that takes the simulation and asserts.

    Args:
        check: the function.
        every_step: checks it after every run of a handler, and not only at the end.
    """

    def made(check: Check) -> Invariant:
        return Invariant(check, check.__name__, every_step)

    return made if check is None else made(check)
