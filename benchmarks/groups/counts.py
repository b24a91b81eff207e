"""The guard against regressions: numbers that a busy machine does not change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import Form, Group, Measured, Results, Subject, Target

#: The numbers that were accepted, for each minor version of Python.
ACCEPTED = Path(__file__).parents[1] / "accepted.json"
#: How much more than accepted is allowed.
TOLERANCE = 1.05
#: Blocks that a handled message may leave: tables that still fill up.
LEFT = 0.5
TITLES = {
    "publish": "bytecode instructions to publish a message",
    "handle": "bytecode instructions to handle a message",
    "waiting": "blocks of memory of a message that waits",
    "left": "blocks of memory that a handled message leaves",
}
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NAME = "ours counts"


def accepted() -> dict[str, float]:
    """The accepted numbers of this Python; none if nobody accepted any."""
    known: dict[str, dict[str, float]] = json.loads(ACCEPTED.read_text())
    return known.get(VERSION, {})


def accept(measured: Measured) -> None:
    """Makes what was measured the accepted numbers of this Python."""
    known = json.loads(ACCEPTED.read_text())
    known[VERSION] = {figure: round(measured[figure], 1) for figure in TITLES if figure != "left"}
    ACCEPTED.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")


def counts(form: Form) -> Group:
    """Once is enough: the numbers do not vary."""
    known = accepted()
    rows = [
        Target(
            f"counted: {title}",
            figure,
            (NAME,),
            LEFT if figure == "left" else round(known[figure] * TOLERANCE, 1) if known else None,
            remark=_change(figure, known),
        )
        for figure, title in TITLES.items()
    ]
    return Group("counts", "Counted, not timed", [Subject("ours", NAME, "counts")], rows, runs=1)


def _change(figure: str, known: dict[str, float]) -> Callable[[Results], str]:
    def remark(results: Results) -> str:
        if figure == "left":
            return ""
        if not known:
            return f"none accepted for Python {VERSION}"
        change = 100 * (results[NAME][figure] / known[figure] - 1)
        return f"{change:+.1f} % of the accepted {known[figure]:g}"

    return remark
