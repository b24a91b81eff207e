"""The parts of the benchmarks that measure nothing: rows, verdicts, plots, the page."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.groups import GROUPS
from benchmarks.model import Form, Group, Measured, Subject, Target
from benchmarks.page import table, write
from benchmarks.plot import plot
from benchmarks.results import Book, Measurement
from benchmarks.rows import number, row

RESULTS = {
    "ours": Measured({"cpu_us": [10.0, 12.0, 11.0], "per_second": [500.0]}),
    "other": Measured({"cpu_us": [44.0], "per_second": [100.0]}),
    "broken": Measured(failure="no result in 120 s"),
}
RATIO = Target("against other", "cpu_us", ("ours", "other"), 0.3)


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (RATIO, "0.25x", "reached"),
        (Target("n", "cpu_us", ("ours", "other"), 0.2), "0.25x", "missed"),
        (Target("n", "per_second", ("ours", "other"), 5.0, at_least=True), "5.00x", "reached"),
        (Target("n", "per_second", ("ours",), 501.0, at_least=True), "500/s", "missed"),
        (Target("n", "cpu_us", ("ours",)), "11.0 us", "info"),
    ],
)
def test_verdict(target: Target, figure: str, verdict: str) -> None:
    made = row(target, RESULTS)
    assert (made.figure, made.verdict) == (figure, verdict)


def test_row_shows_the_spread() -> None:
    assert row(RATIO, RESULTS).ours == "11.0 us (10.0-12.0)"


@pytest.mark.parametrize("name", ["broken", "unknown"])
def test_one_failure_costs_its_own_row_only(name: str) -> None:
    made = row(Target("n", "cpu_us", ("ours", name)), RESULTS)
    assert made.verdict.startswith("failed: ")


def test_limit_of_a_ratio_is_marked_in_the_figure() -> None:
    assert RATIO.mark(RESULTS) == pytest.approx(0.3 * 44)


def test_numbers_have_digits_that_mean_something() -> None:
    assert [number(value, "us") for value in (1234.5, 12.34, 1.234)] == [
        "1,234 us",
        "12.3 us",
        "1.23 us",
    ]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", list(GROUPS))
def test_groups_measure_what_their_rows_need(name: str, full: bool) -> None:
    group = GROUPS[name](Form(full))
    subjects = [subject.name for subject in group.subjects]
    assert len(subjects) == len(set(subjects))
    assert {n for t in group.targets for n in (*t.subjects, *t.beside)} <= set(subjects)
    for subject in group.subjects:
        assert Path("benchmarks/subjects", f"{subject.module}.py").exists()
        for argument in subject.arguments:
            argument.format(url="u", run="r")


GROUP = Group(
    "memory", "Memory <&>", [Subject(n, n, "x") for n in ("ours", "other")],
    [RATIO, Target("again", "cpu_us", ("ours",))],
)  # fmt: skip
SUBJECTS = {name: RESULTS[name] for name in ("ours", "other")}


def test_plot_is_xml_with_a_bar_for_each_subject() -> None:
    root = ElementTree.fromstring(plot(GROUP, SUBJECTS))
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 2


def test_page_keeps_its_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.page.PLOTS", tmp_path / "plots")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured memory -->\nold\n<!-- /measured -->\nafter\n")
    one = Measurement("short", 3, "2026-01-02", "cpu", "Python", SUBJECTS)
    missing = write([(GROUP, one)], page)
    text = page.read_text()
    assert missing == ["machine", "summary"]
    assert text.startswith("before\n<!-- measured memory -->\n![Memory")
    assert text.endswith("<!-- /measured -->\nafter\n")
    assert "old" not in text
    assert "| against other | 11.0 us (10.0-12.0) | 44.0 us | 0.25x | <= 0.30x | reached |" in text
    write([(GROUP, one)], page)
    assert page.read_text() == text


def test_results_are_read_again(tmp_path: Path) -> None:
    one = Measurement("short", 3, "2026-01-02", "cpu", "Python", SUBJECTS)
    Book(tmp_path / "new" / "r.json").keep("memory", one)
    assert Book(tmp_path / "new" / "r.json")["memory"] == one


def test_table_escapes_bars() -> None:
    assert table([("a|b",), ("c",)]) == "| a\\|b |\n|---|\n| c |"
