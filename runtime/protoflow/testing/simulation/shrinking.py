"""Shrinking: the fewest faults and the shortest latencies with which a seed still fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from protoflow.testing.seeds import Seed
from protoflow.testing.simulation.world import Simulation

#: The most times that latencies are halved.
_HALVINGS = 4

#: Runs a seed; returns the run if it fails in the same way, else None.
Fails = Callable[[Seed], Simulation | None]


def shrink(seed: Seed, fails: Fails) -> tuple[Seed, Simulation | None]:
    """Drops faults, then halves latencies and drops more faults, while the seed still fails.

    Returns the smallest seed that fails, with its run; None if even the first seed does not fail.
    """
    best = fails(seed)
    if best is None:
        return seed, None
    seed, best = _with_fewer_faults(seed, best, fails)
    while seed.halvings < _HALVINGS:
        quicker = replace(seed, halvings=seed.halvings + 1)
        if (found := fails(quicker)) is None:
            break
        seed, best = _with_fewer_faults(quicker, found, fails)
    return seed, best


def _with_fewer_faults(seed: Seed, best: Simulation, fails: Fails) -> tuple[Seed, Simulation]:
    """Drops faults: first half of them, then single ones."""
    kept = [*(seed.only or ())]
    size = max(1, len(kept) // 2)
    while kept:
        dropped = False
        for at in range(0, len(kept), size):
            fewer = kept[:at] + kept[at + size :]
            if (found := fails(replace(seed, only=tuple(fewer)))) is not None:
                best, kept, dropped = found, fewer, True
                break
        if not dropped:
            if size == 1:
                break
            size //= 2
        size = max(1, min(size, len(kept) // 2))
    return replace(seed, only=tuple(kept)), best
