"""The table at the end: broker, fault, and what became of the messages."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.ledger import Verdict

_verdicts: list[Verdict] = []


@pytest.fixture
def record_verdict() -> Callable[[Verdict], None]:
    """Takes the verdict of a run into the table."""

    def record(verdict: Verdict) -> None:
        _verdicts.append(verdict)
        if path := os.environ.get("PROTOFLOW_FAULTS_REPORT"):
            with Path(path).open("a") as file:
                file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _verdicts:
        return
    rows = [Verdict.HEAD, *(verdict.row() for verdict in _verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(Verdict.HEAD))]
    terminalreporter.section("faults")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
