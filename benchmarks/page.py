"""docs/performance.md: what was measured goes between its marks, the prose stays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.generated import ROOT
from benchmarks.model import UNITS, Group
from benchmarks.plot import plot
from benchmarks.results import Measurement
from benchmarks.rows import HEAD, rows, spread

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
_BLOCK = re.compile(r"(<!-- measured (\S+) -->\n)(.*?)(<!-- /measured -->)", re.S)


def write(measured: Sequence[tuple[Group, Measurement]], page: Path = PAGE) -> list[str]:
    """Writes page and plots; the groups that the page has no marks for."""
    parts = {group.name: block(group, measurement) for group, measurement in measured}
    parts["machine"] = machine(measurement for _, measurement in measured)
    parts["summary"] = summary(measured)
    before = page.read_text()
    page.write_text(_BLOCK.sub(lambda found: _replaced(found, parts), before))
    PLOTS.mkdir(exist_ok=True)
    for group, measurement in measured:
        (PLOTS / f"{group.name}.svg").write_text(plot(group, measurement.subjects))
    return sorted(set(parts) - {found[2] for found in _BLOCK.finditer(before)})


def _replaced(found: re.Match[str], parts: dict[str, str]) -> str:
    return found[1] + parts.get(found[2], found[3]) + found[4]


def machine(measurements: Iterable[Measurement]) -> str:
    """Where and with what; more than one line if groups differ."""
    told = dict.fromkeys(f"- {one.processor}; {one.versions}" for one in measurements)
    return "\n".join(_longest(told)) + "\n"


def _longest(lines: Iterable[str]) -> list[str]:
    """Those that are not contained in another: a group without broker tells of none."""
    known = list(lines)
    parts = [set(re.split(r"[,;] ", line)) for line in known]
    return [
        line
        for line, own in zip(known, parts, strict=True)
        if not any(own < other for other in parts)
    ]


def summary(measured: Sequence[tuple[Group, Measurement]]) -> str:
    """How many rows were reached, and which were not."""
    found = [row for group, measurement in measured for row in rows(group, measurement.subjects)]
    wanted = [row for row in found if row.verdict != "info"]
    missed = [row for row in wanted if row.verdict != "reached"]
    text = f"{len(wanted) - len(missed)} of {len(wanted)} targets are reached."
    lines = [
        f"- {row.name}: {f'{row.figure}, {row.wanted} wanted' if row.figure else row.verdict}"
        for row in missed
    ]
    return "\n".join([text, *(["", "Not reached:", "", *lines] if missed else [])]) + "\n"


def block(group: Group, measurement: Measurement) -> str:
    """The plot, the rows, and every subject's figures."""
    subjects = measurement.subjects
    figures = [
        figure
        for figure in UNITS
        if any(figure in measured.figures for measured in subjects.values())
    ]
    details = [
        (name, *(spread(one, f) if f in one.figures else "" for f in figures))
        for name, one in subjects.items()
    ]
    runs = f"{measurement.runs} run{'s' if measurement.runs > 1 else ''}"
    told = f"{measurement.form} form, {runs}, {measurement.date}"
    return "\n".join(
        [
            f"![{group.title}](performance/{group.name}.svg)",
            "",
            table([(*HEAD[:-1], "verdict"), *(row.cells for row in rows(group, subjects))]),
            "",
            f"Every subject, median (smallest-largest); {told}:",
            "",
            table([("subject", *(_title(figure) for figure in figures)), *details]),
            "",
        ]
    )


_TITLES = {"per_second": "a second", "share": "share of the ideal", "growth_kib": "growth"}


def _title(figure: str) -> str:
    name, _, unit = figure.rpartition("_")
    return _TITLES.get(figure, name if unit == UNITS[figure] else figure).replace("cpu", "CPU")


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    texts = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]
    return "\n".join([texts[0], "|" + "---|" * len(lines[0]), *texts[1:]])
