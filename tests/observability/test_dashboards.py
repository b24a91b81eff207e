"""The dashboard and the alert rules name metrics and labels that are really there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from protoflow.middleware import Dependencies
from protoflow.observability.prometheus import Exposition
from protoflow.outbox import SQLiteOutbox
from protoflow.transport import Lag

from tests.middleware.harness import put, running, worker

DOCS = Path(__file__).parents[2] / "docs"
#: Labels that Prometheus adds to what it scrapes.
ADDED = {"job", "instance"}


async def broken(message: Any, _context: object) -> None:
    if message.value == "bad":
        raise ValueError


@pytest.fixture
async def labels(tmp_path: Path) -> dict[str, set[str]]:
    """Every series that a service can show, and its labels."""
    store = SQLiteOutbox(tmp_path / "outbox.db")
    async with running(
        worker(broken), virtual_time=False, dependencies=Dependencies(outbox=store)
    ) as service:
        await put(service, "good", "bad")
        reporter = service.service.reporter
        reporter.lag["work/workers"] = Lag(messages=1, seconds=1.0)
        families = list(Exposition(reporter).registry.collect())
    await store.close()
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DOCS / "grafana" / "protoflow.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"][1:]:
        yield f"variable {variable['name']}", variable["definition"]
    rules = (DOCS / "alerts" / "protoflow.rules.yml").read_text()
    for block in re.split(r"\n\s+- alert: ", rules)[1:]:
        name = block.split("\n", 1)[0]
        match = re.search(r"expr: (?:>-\n)?(.*?)\n\s+(?:for|labels):", block, re.DOTALL)
        assert match is not None, name
        yield f"alert {name}", match[1]


EXPRESSIONS = dict(expressions())


@pytest.mark.parametrize("where", EXPRESSIONS)
async def test_metrics_and_labels_exist(where: str, labels: dict[str, set[str]]) -> None:
    expression = EXPRESSIONS[where]
    metrics = set(re.findall(r"\b(?:protoflow|messaging)_[a-z_]+(?=[{\[ ),]|$)", expression))
    names = {name for name in metrics if name in labels}
    known = set().union(*(labels[name] for name in names)) | ADDED
    assert names, expression
    assert metrics - names <= known, f"no such metric: {metrics - names - known}"
    filters = re.findall(r"[{,]\s*([a-z_]+)\s*=", expression)
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    renamed = set(re.findall(r'"([a-z_]+)", "\$1"', expression))
    used = set(filters) | {name.strip() for group in grouped for name in group.split(",")}
    assert used <= known | renamed, f"no such label: {used - known - renamed}"


def test_the_dashboard_shows_and_the_rules_watch_what_matters() -> None:
    text = " ".join(EXPRESSIONS.values())
    for name in (
        "protoflow_subscription_healthy", "protoflow_dead_letters_waiting", "protoflow_lag_seconds",
        "messaging_process_duration_seconds_bucket", "protoflow_outbox_pending",
    ):  # fmt: skip
        assert name in text


async def test_the_documentation_lists_every_metric(labels: dict[str, set[str]]) -> None:
    page = (DOCS / "observability.md").read_text()
    for name in labels:
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f"`{plain}`" in page, plain
