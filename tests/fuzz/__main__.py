"""What `make fuzz` runs.

    python -m tests.fuzz [--messages N] [--seed S] [--batch B] [--brokers kafka,rabbitmq,jetstream]
    python -m tests.fuzz --mutations

Ends with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time

from tests.fuzz import brokers, decoders, mutations
from tests.fuzz.intake import BATCH, Intake, Report

#: Messages between two looks whether something was found.
ROUND = 4 * BATCH


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzzes what is received.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="through intake")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, help="this batch alone, to look at a finding")
    parser.add_argument("--brokers", default="", help="random rows to these brokers, too")
    parser.add_argument("--rounds", type=int, default=1, help="trials for each broker")
    parser.add_argument("--seconds", type=float, help="of CPU, or until something is found")
    parser.add_argument("--mutations", action="store_true", help="without fixes, one at a time")
    args = parser.parse_args()
    if args.mutations:
        return mutations.run(args.seed)
    report = Report()
    started = time.monotonic()
    one = args.batch is not None
    if args.seconds is not None:
        until_found(args.seed, args.seconds, report)
        return ended(report, started)
    asyncio.run(Intake(args.seed, report).run(1 if one else args.messages, first=args.batch or 0))
    if not one:
        decoders.run(args.seed, args.messages, report)
    for name in filter(None, args.brokers.split(",")):
        for number in range(args.rounds):
            batch = args.batch if one else number
            asyncio.run(brokers.run(name, args.seed, batch, report))
    return ended(report, started)


def until_found(seed: int, seconds: float, report: Report) -> None:
    """A little of everything in turn."""
    deadline = time.process_time() + seconds
    batches = ROUND // BATCH
    for number in itertools.count():
        decoders.run(seed, ROUND, report, first=number * ROUND)
        if not report.findings:
            asyncio.run(Intake(seed, report).run(ROUND, first=number * batches))
        if report.findings or time.process_time() > deadline:
            return


def ended(report: Report, started: float) -> int:
    """Prints what was found; the exit status."""
    report.seconds = time.monotonic() - started
    print("\n".join(report.lines()))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
