"""Makes time, ids and randomness of the whole Python process follow one seed for a while."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import _bootstrap
from typing import Any

from protoflow import ids
from protoflow.clock import Clock

#: The start of virtual time, in seconds since the epoch: 2026-01-01 UTC.
START = 1767225600.0
#: The functions of `random` that take from the shared generator.
_DRAWING = tuple(
    name
    for name, function in vars(random).items()
    if not name.startswith("_") and getattr(function, "__self__", None) is random._inst
)
_importing: Any = _bootstrap  # all imports end there


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
def determined(
    seed: int, monotonic: Callable[[], float], refused: Callable[[str], object] = print
) -> Iterator[None]:
    """Makes `time`, `random` and `os.urandom` follow the seed and virtual time.

    `uuid.uuid4` and the ids of messages are built on them and therefore follow the seed, too.
    `datetime.now` and code in C do not change.

    Other threads, and modules that are imported meanwhile, get the real functions, so that they do
    not change what the seed gives. A thread cannot be started: `refused` is called, because a
    handler's error would only be retried.
    """
    bits = random.Random(seed)  # noqa: S311  it is to be repeatable
    state = random.getstate()
    collects = gc.isenabled()
    gc.disable()  # a collection would run destructors at moments that the seed does not choose
    random.seed(seed)
    ids.forget()
    replaced = _Here().replacements(bits.randbytes, monotonic, refused)
    kept = {place: getattr(*place) for place in replaced}
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


class _Here:
    """The thread of the simulation, while it imports nothing."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._imports = 0

    def replacements(
        self, randbytes: Callable[[int], bytes], monotonic: Callable[[], float],
        refused: Callable[[str], object],
    ) -> dict[tuple[Any, str], Any]:  # fmt: skip
        """Returns what replaces what, by module and name."""
        clocks = ("monotonic", "perf_counter", "process_time", "thread_time")
        found: dict[tuple[Any, str], Any] = {
            (time, "time"): lambda: START + monotonic(),
            (time, "time_ns"): lambda: int((START + monotonic()) * 1e9),
            **{(time, name): monotonic for name in clocks},
            **{(time, f"{name}_ns"): lambda: int(monotonic() * 1e9) for name in clocks},
            (os, "urandom"): randbytes,
            (random, "_urandom"): randbytes,
            (threading.Thread, "start"): partial(_refuse, refused),
            (ids, "_Millisecond"): partial(_same, {}, ids._Millisecond),
        }
        here = {place: self._or(function, getattr(*place)) for place, function in found.items()}
        elsewhere = random.Random()  # noqa: S311  for those that took from the shared one
        for name in _DRAWING:
            shared = getattr(random, name)
            here[random, name] = self._or(shared, getattr(elsewhere, name))
        here[_importing, "_find_and_load"] = self._counted(_importing._find_and_load)
        return here

    def _or(self, function: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that is one thing here and another elsewhere."""
        thread, ident = self._thread, threading.get_ident

        def either(*args: Any, **kwargs: Any) -> Any:
            if ident() == thread and not self._imports:
                return function(*args, **kwargs)
            return real(*args, **kwargs)

        return either

    def _counted(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the import of a module that is not loaded yet, during which it is not here."""

        def counted(*args: Any) -> Any:
            if threading.get_ident() != self._thread:
                return load(*args)
            self._imports += 1
            try:
                return load(*args)
            finally:
                self._imports -= 1

        return counted


def _same(made: dict[int, Any], make: Callable[[int], Any], number: int) -> Any:
    """Returns the ids of a millisecond, the same again if another thread made ids meanwhile."""
    if ids._current is None or number not in made:
        made[number] = make(number)
    return made[number]


def _refuse(refused: Callable[[str], object], thread: threading.Thread) -> None:
    text = (
        f"a simulated service started the thread {thread.name!r}; a seed cannot decide when a "
        "thread runs: use asyncio.to_thread, which is simulated, or give the service a fake"
    )
    refused(text)
    raise RuntimeError(text)
