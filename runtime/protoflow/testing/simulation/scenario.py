"""What a simulation does, and what must hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, overload

Publish = Callable[[Any], Awaitable[None]]  # Any: a Simulation, whose module imports this one
Check = Callable[[Any], object]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the outside world does, and how bad its days are.

    Attributes:
        publish: publishes through `simulation.publisher`; returns when it is done.
        faults: how many faults are planned; all but the first five may meet nothing.
        crashes: how many crashes are planned beside them; all but the first two may meet nothing.
        duration: seconds in which faults are planned; after the last everything must come to rest.
        patience: seconds that it gets for that.
    """

    publish: Publish
    faults: int = 9
    crashes: int = 3
    duration: float = 30.0
    patience: float = 7200.0


@dataclass(frozen=True)
class Invariant:
    """What must hold.

    Attributes:
        check: raises AssertionError where it does not.
        name: its name in reports.
        every_step: whether it is checked after every run of a handler; else at rest only.
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
        every_step: checks it after every run of a handler, and not at rest only.
    """

    def made(check: Check) -> Invariant:
        return Invariant(check, check.__name__, every_step)

    return made if check is None else made(check)
