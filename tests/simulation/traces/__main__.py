"""The long form: `make traces`. Records seeds, and holds each to the rules of its broker."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from protoflow.testing.broker_traces import check
from protoflow.testing.simulation.profiles import PROFILES

from tests.simulation.traces.recorded import record

_PART = 25


def run(part: tuple[str, int, int]) -> tuple[str, int, int, list[str]]:
    """Runs some seeds; returns how many events and steps there were, and what disagrees."""
    logging.disable(logging.CRITICAL)
    transport, first, last = part
    events = steps = 0
    found: list[str] = []
    for seed in range(first, last):
        checker = check(record(transport, seed, pytest.MonkeyPatch()), transport)
        events += checker.events
        steps += checker.steps
        found += [f"{transport}, seed {seed}: {each}" for each in checker.found]
    return transport, events, steps, found


def parts(transports: list[str], seeds: int) -> Iterator[tuple[str, int, int]]:
    """Yields portions for the workers."""
    for transport in transports:
        for at in range(0, seeds, _PART):
            yield transport, at, min(seeds, at + _PART)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make traces")
    parser.add_argument("--seeds", type=int, default=1000, help="of each transport; default 1000")
    parser.add_argument("--as", dest="transports", action="append", choices=[*PROFILES])
    options = parser.parse_args()
    transports = options.transports or [*PROFILES]
    totals = {transport: [0, 0, 0] for transport in transports}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for transport, events, steps, found in pool.map(run, parts(transports, options.seeds)):
            for at, number in enumerate((events, steps, len(found))):
                totals[transport][at] += number
            for text in found:
                print(text, flush=True)
    for transport, (events, steps, disagreements) in totals.items():
        print(
            f"{transport}: {options.seeds:,} seeds, {events:,} events, {steps:,} steps, "
            f"{disagreements} disagreements"
        )
    return 1 if any(total[2] for total in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
