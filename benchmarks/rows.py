"""From figures to the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.model import UNITS, Group, Measured, Results, Target

HEAD = ("target", "ours", "other", "figure", "wanted", "")


@dataclass(frozen=True)
class Row:
    """One row, as text.

    Attributes:
        verdict: reached, missed, info, or failed and why.
    """

    name: str
    ours: str = ""
    other: str = ""
    figure: str = ""
    wanted: str = ""
    verdict: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of the head."""
        return (self.name, self.ours, self.other, self.figure, self.wanted, self.verdict)


def rows(group: Group, results: Results) -> list[Row]:
    """The rows of a group, of those subjects that were measured."""
    return [row(target, results) for target in group.targets]


def row(target: Target, results: Results) -> Row:
    """One row."""
    for name in (*target.subjects, *target.beside):
        if name not in results:
            return Row(target.name, verdict=f"failed: {name} was not measured")
        if failure := results[name].failure:
            return Row(target.name, verdict=f"failed: {failure} ({name})")
    own, *others = (results[name] for name in target.subjects)
    try:
        value = target.value(results)
        remark = target.remark(results) if target.remark else ""
    except KeyError as error:  # kept by an older program
        return Row(target.name, verdict=f"failed: no figure {error}; measure again")
    other = " ".join([*(spread(one, target.figure) for one in others), remark]).strip()
    sign = ">=" if target.at_least else "<="
    wanted = f"{sign} {number(target.limit, target.unit)}" if target.limit is not None else ""
    return Row(
        target.name, spread(own, target.figure), other, number(value, target.unit), wanted,
        target.verdict(value),
    )  # fmt: skip


def spread(measured: Measured, figure: str) -> str:
    """The median, and in brackets the smallest and the largest."""
    low, high = measured.ends(figure)
    unit = UNITS[figure]
    text = number(measured[figure], unit)
    if len(measured.figures[figure]) == 1:
        return text
    return f"{text} ({number(low, '')}-{number(high, '')})"


def number(value: float, unit: str) -> str:
    """A number with as many digits as mean something."""
    size = abs(value)
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text + (unit if unit in ("x", "/s", "") else f" {unit}")


def text(table: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return "\n".join(lines)
