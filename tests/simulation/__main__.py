"""The long form of the simulation: `make simulate`.

Runs seeds of the default scenario on each simulated transport, on every core; with `--planted` it
looks for the planted bugs instead. Ends with 1 if a seed fails, or a bug is not found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from protoflow.testing.simulation.profiles import PROFILES

from tests.simulation.plant import PATCHES, search, transport_of

_PART = 250


def run(part: tuple[str, int, int]) -> tuple[bool, str]:
    """Runs some seeds in a process of its own."""
    transport, first, last = part
    command = [sys.executable, "-m", "tests.simulation.program", transport, f"{first}-{last}"]
    done = subprocess.run(
        [*command, "--report", "--explain"], capture_output=True, text=True, check=False
    )
    text = done.stdout.strip()
    if done.returncode or done.stderr:
        return False, f"{transport}: {text}\n{done.stderr}"
    return True, f"{transport}: from seed {first}, {text}"


def look_for(patch: Path, seeds: int) -> tuple[bool, str]:
    """Looks for one planted bug."""
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        found = search(patch, Path(directory), seeds)
    where = f"{patch.stem} ({transport_of(patch)})"
    if found is None:
        return False, f"{where}: NOT FOUND by {seeds} seeds"
    return found.repeatable, f"{where}: seed {found.seed}, {found.invariant}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=None, help="10000; for planted bugs 2000")
    parser.add_argument("--as", dest="transports", action="append", choices=[*PROFILES])
    parser.add_argument("--planted", action="store_true", help="look for the planted bugs")
    options = parser.parse_args()
    seeds = options.seeds or (2000 if options.planted else 10_000)
    transports = options.transports or [*PROFILES]
    each = seeds // len(transports)
    parts = [
        (transport, at, min(each, at + _PART))
        for transport in transports
        for at in range(0, each, _PART)
    ]
    good = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = (
            pool.map(lambda patch: look_for(patch, seeds), PATCHES)
            if options.planted
            else pool.map(run, parts)
        )
        for held, text in results:
            good &= held
            print(text, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
