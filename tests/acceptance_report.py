"""`python -m tests.acceptance_report [pytest arguments]`: the suite, and a row per transport."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.acceptance.targets import TARGETS


class Report:
    """Counts what became of the cases of each transport."""

    def __init__(self) -> None:
        self._transports: dict[str, str] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._reasons: dict[str, Counter[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            callspec = getattr(item, "callspec", None)
            if callspec is not None and "target" in callspec.params:
                self._transports[item.nodeid] = callspec.params["target"].name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        transport = self._transports.get(report.nodeid)
        if transport is None or (report.when != "call" and report.passed):
            return
        if report.when == "teardown" and report.failed:
            self._count(transport, "failed")
        elif report.when in ("setup", "call"):
            self._count(transport, report.outcome)
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            self._reasons.setdefault(transport, Counter())[reason] += 1

    def _count(self, transport: str, outcome: str) -> None:
        self._counts.setdefault(transport, Counter())[outcome] += 1

    def lines(self) -> list[str]:
        """The table."""
        rows = [f"{'transport':<12}{'passed':>8}{'skipped':>9}{'failed':>8}  not claimed"]
        for transport in TARGETS:
            if counts := self._counts.get(transport):
                skipped = ", ".join(
                    f"{reason.removeprefix('capability: ')} ({count})"
                    for reason, count in sorted(self._reasons.get(transport, Counter()).items())
                )
                rows.append(
                    f"{transport:<12}{counts['passed']:>8}{counts['skipped']:>9}"
                    f"{counts['failed']:>8}  {skipped}".rstrip()
                )
            else:
                rows.append(f"{transport:<12}{'not run':>8}")
        return rows


def main() -> int:
    """Runs the suite; pytest's exit status."""
    report = Report()
    given = sys.argv[1:]
    if not any(argument.startswith("--transport") for argument in given):
        given += [f"--transport={name}" for name in TARGETS]
    status = pytest.main(["tests/acceptance", "-q", *given], plugins=[report])
    print("", *report.lines(), sep="\n")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
