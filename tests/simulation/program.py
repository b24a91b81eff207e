"""Runs seeds of the default scenario in a process of its own: `program sqlite 0-100`.

Prints the first seed that fails and its invariant; with `--trace` the trace of the first seed.
"""

from __future__ import annotations

import sys

import protoflow
from protoflow.testing import Scenario, SimulationFailed, simulate
from protoflow.testing.seeds import Seed
from protoflow.testing.simulation.explorer import Explorer, named

from tests.simulation.sagas import INVARIANTS, SERVICES, orders


def trace(transport: str, seed: int) -> str:
    """Returns the trace of a seed."""
    explorer = Explorer(
        services=named(SERVICES),
        scenario=Scenario(publish=orders),
        as_=transport,
        invariants=(),
        on_restart=None,
        snapshot=None,
    )
    return explorer.run(Seed(seed)).trace.text()


def main(transport: str, seeds: str, *options: str) -> None:
    first, _, last = seeds.partition("-")
    if "--trace" in options:
        print(trace(transport, int(first)))
        return
    try:
        report = simulate(
            *SERVICES, scenario=orders, as_=transport, seeds=range(int(first), int(last)),
            invariants=INVARIANTS,
        )  # fmt: skip
    except SimulationFailed as failed:
        repeatable = "" if failed.divergence is None else ", not repeatable"
        print(failed.seed.number, f"{failed.failure.invariant}{repeatable}")
        if "--explain" in options:
            print(failed, file=sys.stderr)
        return
    print(report if "--report" in options else "")


if __name__ == "__main__":
    assert protoflow.__file__
    main(*sys.argv[1:])
