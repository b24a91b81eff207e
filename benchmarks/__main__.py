"""Measures, and prints a row for each target: `python -m benchmarks [GROUP...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks import brokers, machine, page
from benchmarks.generated import ROOT
from benchmarks.groups import GROUPS
from benchmarks.groups.counts import NAME as COUNTS
from benchmarks.groups.counts import accept
from benchmarks.model import Form, Group
from benchmarks.results import Book, Measurement
from benchmarks.rows import HEAD, Row, rows, text
from benchmarks.runner import Runner


def main() -> int:
    """Measures what was asked for; 1 if anything failed or a count is beyond its bound."""
    options = _options()
    book = Book(options.results)
    if options.again:
        groups = [GROUPS[name](Form(book[name].form == "full")) for name in GROUPS if name in book]
        groups = [group for group in groups if not options.groups or group.name in options.groups]
        measured = [(group, book[group.name]) for group in groups]
    else:
        measured = _measure(_chosen(options), options, book)
    found = [row for group, one in measured for row in rows(group, one.subjects)]
    _print(measured, found)
    if options.accept:
        accept(dict(measured_by_name(measured))["counts"].subjects[COUNTS])
        print("accepted: benchmarks/accepted.json", file=sys.stderr)
    if options.write:
        known = [(GROUPS[name](Form(book[name].form == "full")), book[name]) for name in GROUPS
                 if name in book]  # fmt: skip
        for name in page.write(known):
            print(f"docs/performance.md has no place for {name}", file=sys.stderr)
    return int(any(_bad(row) for row in found) and not options.accept)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all")
    parser.add_argument("--only", default="", help="a group, or rows whose name holds this word")
    parser.add_argument("--full", action="store_true", help="more messages, five runs")
    parser.add_argument("--runs", type=int, default=0, help="runs of each subject")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument("--again", action="store_true", help="report the last results again")
    parser.add_argument("--accept", action="store_true", help="accept the counts as they are now")
    kept = ROOT / ".venv" / "benchmarks.json"
    parser.add_argument("--results", type=Path, default=kept, help="where results are kept")
    options = parser.parse_args()
    if options.only in GROUPS:
        options.groups, options.only = [options.only], ""
    if unknown := [name for name in options.groups if name not in GROUPS]:
        parser.error(f"no such group: {', '.join(unknown)}; known are {', '.join(GROUPS)}")
    if options.accept and options.groups != ["counts"]:
        parser.error("--accept goes with the group counts alone")
    return options


def _chosen(options: argparse.Namespace) -> list[Group]:
    """The groups that were asked for, with the rows that were asked for."""
    form = Form(options.full)
    groups = [GROUPS[name](form) for name in GROUPS if name in (options.groups or GROUPS)]
    if options.only:
        groups = [_narrowed(group, options.only.lower()) for group in groups]
    chosen = [group for group in groups if group.targets]
    if not chosen:
        sys.exit(f"no row holds the word {options.only!r}")
    return chosen


def _narrowed(group: Group, word: str) -> Group:
    targets = [target for target in group.targets if word in target.name.lower()]
    needed = {name for target in targets for name in (*target.subjects, *target.beside)}
    subjects = [subject for subject in group.subjects if subject.name in needed]
    return replace(group, targets=targets, subjects=subjects)


def _measure(
    groups: Sequence[Group], options: argparse.Namespace, book: Book
) -> list[tuple[Group, Measurement]]:
    _need_peers(groups)
    found = brokers.find(set().union(*(group.brokers for group in groups)))
    runner = Runner(found.urls)
    form = Form(options.full)
    measured = []
    for group in groups:
        runs = options.runs or group.runs or form.runs
        versions = machine.versions(found.versions)
        one = Measurement(form.name, runs, machine.today(), machine.processor(), versions)
        one.subjects = runner.group(group, runs)
        measured.append((group, one))
        if not options.only:  # a part of a group must not pass for all of it
            book.keep(group.name, one)
    return measured


def _need_peers(groups: Sequence[Group]) -> None:
    """Ends the program when something to compare with is not installed."""
    libraries = {subject.library for group in groups for subject in group.subjects}
    for peer in ("faststream", "faststream-outbox", "pgqueuer", "procrastinate"):
        if peer in libraries and find_spec(peer.replace("-", "_")) is None:
            sys.exit(f"{peer} is not installed; run: python -m pip install --group bench")
    names = {group.name for group in groups}
    if "codegen" in names and not (Path(sys.executable).parent / "protoc-gen-mypy").exists():
        sys.exit("mypy-protobuf is not installed; run: python -m pip install --group dev")


def measured_by_name(
    measured: Sequence[tuple[Group, Measurement]],
) -> list[tuple[str, Measurement]]:
    """The measurements with the names of their groups."""
    return [(group.name, measurement) for group, measurement in measured]


def _print(measured: Sequence[tuple[Group, Measurement]], found: Sequence[Row]) -> None:
    for line in dict.fromkeys(f"{one.date}, {one.processor}" for _, one in measured):
        print(line)
    for line in dict.fromkeys(one.versions for _, one in measured):
        print(line)
    print("median (smallest-largest) of fresh processes; CPU is user and system, per message")
    print(text([HEAD, *(row.cells for row in found)]))
    if any(_bad(row) and row.name.startswith("counted") for row in found):
        print(
            "A count is beyond its bound. If the change is worth it, accept the new numbers:"
            " make bench ARGS='counts --accept'"
        )


def _bad(row: Row) -> bool:
    """Timings decide nothing; failures and counts do."""
    counted = row.name.startswith("counted") and row.verdict == "missed"
    return counted or row.verdict.startswith("failed")


if __name__ == "__main__":
    sys.exit(main())
