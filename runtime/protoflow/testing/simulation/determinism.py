"""Makes time, ids and randomness of the whole Python process follow one seed for a while."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from protoflow import ids
from protoflow.clock import Clock

#: The start of virtual time, in seconds since the epoch: 2026-01-01 UTC.
START = 1767225600.0


class SimulatedClock(Clock):
    """The clock of one simulated process.

    Args:
        monotonic: returns the virtual time.
        random: returns random numbers for this process.
    """

    virtual = True

    def __init__(self, monotonic: Callable[[], float], random: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._random = random
        #: The error of the wall clock, in seconds.
        self.offset = 0.0

    def now(self) -> float:
        """Returns the virtual wall time in seconds since the epoch, with its error."""
        return START + self._monotonic() + self.offset

    def monotonic(self) -> float:
        """Returns the virtual time."""
        return self._monotonic()

    def random(self) -> float:
        """Returns the next random number of this process."""
        return self._random()


@contextmanager
def determined(seed: int, monotonic: Callable[[], float]) -> Iterator[None]:
    """Makes `time`, `random` and `os.urandom` follow the seed and virtual time.

    `uuid.uuid4` and the ids of messages are built on them and therefore follow the seed, too.
    `datetime.now` and code in C do not change.
    """
    bits = random.Random(seed)  # noqa: S311  it is to be repeatable
    replaced: dict[tuple[Any, str], Any] = {
        (time, "time"): lambda: START + monotonic(),
        (time, "time_ns"): lambda: int((START + monotonic()) * 1e9),
        (time, "monotonic"): monotonic,
        (time, "monotonic_ns"): lambda: int(monotonic() * 1e9),
        (time, "perf_counter"): monotonic,
        (time, "perf_counter_ns"): lambda: int(monotonic() * 1e9),
        (os, "urandom"): bits.randbytes,
        (random, "_urandom"): bits.randbytes,
    }
    kept = {place: getattr(*place) for place in replaced}
    state = random.getstate()
    collects = gc.isenabled()
    gc.disable()  # a collection would run destructors at moments that the seed does not choose
    random.seed(seed)
    ids.forget()
    for (module, name), function in replaced.items():
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name), function in kept.items():
            setattr(module, name, function)
        random.setstate(state)
        ids.forget()
        if collects:
            gc.enable()
