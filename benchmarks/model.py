"""What is measured and what is wanted of it: subjects, figures, targets, groups."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["reached", "missed", "info", "failed"]


@dataclass(frozen=True)
class Subject:
    """One thing that is measured, in a process of its own.

    Attributes:
        library: ours, raw or faststream, or what else is compared.
        name: unique in its group.
        module: the program beneath `benchmarks.subjects`.
        arguments: its command line; `{url}` and `{run}` are filled in.
        broker: the transport whose URL is filled in; empty for none.
    """

    library: str
    name: str
    module: str
    arguments: tuple[str, ...] = ()
    broker: str = ""


@dataclass
class Measured:
    """What the runs of one subject gave, or why one failed."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""

    def add(self, result: Mapping[str, Any]) -> None:
        """Keeps the numbers of one run."""
        for name, value in result.items():
            if isinstance(value, int | float):
                self.figures.setdefault(name, []).append(float(value))

    def __getitem__(self, figure: str) -> float:
        """The median."""
        return statistics.median(self.figures[figure])

    def ends(self, figure: str) -> tuple[float, float]:
        """The smallest and the largest."""
        values = self.figures[figure]
        return min(values), max(values)


#: The measured subjects of a group by name.
Results = Mapping[str, Measured]

#: Figure -> its unit; the figures are what subjects print.
UNITS = {
    "cpu_us": "us",
    "server_us": "us",
    "per_second": "/s",
    "cpu_ms": "ms",
    "wall_ms": "ms",
    "p50_ms": "ms",
    "p99_ms": "ms",
    "growth_kib": "KiB",
    "share": "%",
    "publish": "",
    "handle": "",
    "waiting": "",
    "left": "",
}


@dataclass(frozen=True)
class Target:
    """One row of the table.

    Attributes:
        name: what is compared.
        figure: the figure of the subjects that counts.
        subjects: their names, ours first; with a second one the row is a ratio.
        limit: what is wanted; None is a row for information.
        at_least: the limit must be reached, not kept.
        beside: subjects that only the plot shows.
        remark: a word on the row, from what was measured.
    """

    name: str
    figure: str
    subjects: tuple[str, ...]
    limit: float | None = None
    at_least: bool = False
    beside: tuple[str, ...] = ()
    remark: Callable[[Results], str] | None = None

    @property
    def unit(self) -> str:
        """That of the row's value."""
        return "x" if len(self.subjects) > 1 else UNITS[self.figure]

    def value(self, results: Results) -> float:
        """What is held against the limit."""
        own, *others = (results[name][self.figure] for name in self.subjects)
        return own / others[0] if others else own

    def mark(self, results: Results) -> float | None:
        """The limit in the unit of the figure: where the plot shows it."""
        if self.limit is None or len(self.subjects) == 1:
            return self.limit
        return self.limit * results[self.subjects[1]][self.figure]

    def verdict(self, value: float) -> Verdict:
        """What the value means."""
        if self.limit is None:
            return "info"
        kept = value >= self.limit if self.at_least else value <= self.limit
        return "reached" if kept else "missed"


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    Attributes:
        name: what the command line says.
        title: the heading.
        subjects: in the order in which they take turns.
        targets: the rows.
        runs: of each subject, if not as many as the form says.
        timeout: seconds for one run.
    """

    name: str
    title: str
    subjects: Sequence[Subject]
    targets: Sequence[Target]
    runs: int = 0
    timeout: float = 120.0

    @property
    def brokers(self) -> set[str]:
        """The transports that must be there."""
        return {subject.broker for subject in self.subjects if subject.broker}


@dataclass(frozen=True)
class Form:
    """How much is measured: the short form or the full one."""

    full: bool = False

    def count(self, short: int, full: int) -> int:
        """One of both."""
        return full if self.full else short

    @property
    def runs(self) -> int:
        """Of each subject, unless said otherwise."""
        return self.count(3, 5)

    @property
    def name(self) -> str:
        """What the report calls it."""
        return "full" if self.full else "short"
