"""The table of targets: `python -m benchmarks [--full] [--only WORD] [--runs N]`."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from importlib.metadata import version

from benchmarks.generated import use
from benchmarks.run import EMBEDDED, Subject, measure
from benchmarks.targets import TARGETS, Target

#: Messages a run, short and full.
COUNTS = {"rabbitmq": (5_000, 20_000), "jetstream": (10_000, 30_000)}
DEFAULT = (15_000, 50_000)
PACKAGES = ("faststream", "aiokafka", "nats-py", "aio-pika", "protobuf", "opentelemetry-sdk")


def main() -> int:
    """Measures, prints the table; 0 whatever was reached."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more messages and runs")
    parser.add_argument("--only", default="", help="targets whose name holds this word")
    parser.add_argument("--runs", type=int, default=0, help="runs of each subject")
    options = parser.parse_args()
    use()
    targets = [target for target in TARGETS if options.only in target.name]
    runs = options.runs or (5 if options.full else 3)
    rows: list[tuple[str, ...]] = []
    for group in dict.fromkeys(target.group for target in targets):
        chosen = [target for target in targets if target.group == group]
        rows += _group(group, chosen, runs, options.full)
    _print(rows)
    return 0


def _group(group: str, targets: list[Target], runs: int, full: bool) -> list[tuple[str, ...]]:
    subjects: list[Subject] = list(
        dict.fromkeys(subject for target in targets for subject in target.subjects)
    )
    count = COUNTS.get(group, DEFAULT)[full]
    measured = measure(subjects, _urls(subjects), count, runs)
    return [target.row(measured) for target in targets]


def _urls(subjects: list[Subject]) -> dict[str, str]:
    from tests.brokers import url_of

    urls = {}
    for name in {subject.transport for subject in subjects} - set(EMBEDDED):
        url = url_of(name)
        if url is None:
            sys.exit(f"{name}: no broker; see `make brokers`")
        urls[name] = url
    return urls


def _print(rows: list[tuple[str, ...]]) -> None:
    head = ("target", "ours, us CPU", "other, us CPU", "figure", "wanted", "")
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    print(f"{today}, Python {platform.python_version()}, {platform.machine()}, {versions}")
    print("CPU per message in microseconds: median (smallest-largest) of fresh processes")
    for row in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    sys.exit(main())
