"""What `make fuzz` runs.

    python -m tests.fuzz [--messages N] [--seed S] [--batch B] [--brokers kafka,rabbitmq,jetstream]

Ends with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.fuzz import brokers, decoders
from tests.fuzz.intake import Intake, Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzzes what is received.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="through intake")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, help="this batch alone, to look at a finding")
    parser.add_argument("--brokers", default="", help="random rows to these brokers, too")
    parser.add_argument("--rounds", type=int, default=1, help="trials for each broker")
    args = parser.parse_args()
    report = Report()
    started = time.monotonic()
    one = args.batch is not None
    asyncio.run(Intake(args.seed, report).run(1 if one else args.messages, first=args.batch or 0))
    if not one:
        decoders.run(args.seed, args.messages, report)
    for name in filter(None, args.brokers.split(",")):
        for number in range(args.rounds):
            batch = args.batch if one else number
            asyncio.run(brokers.run(name, args.seed, batch, report))
    report.seconds = time.monotonic() - started
    print("\n".join(report.lines()))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
