"""Memory and sqlite against a model of delivery, at random."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from protoflow.contract.spec import Ordering
from protoflow.transports.sqlite import claiming, settling

from tests.transports.delivery_model import DeliveryModel

#: How many times as many examples as usual: PROTOFLOW_EXAMPLES=20 before a release.
EXAMPLES = int(os.environ.get("PROTOFLOW_EXAMPLES", "1"))


def _machine(name: str, url: str, ordering: Ordering, examples: int, **fields: Any) -> Any:
    machine: Any = type(name, (DeliveryModel,), {"url": url, "ordering": ordering, **fields})
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples * EXAMPLES,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


MEMORY = "memory://{directory}"
SQLITE = "sqlite:///{directory}/queue.db?synchronous=off"

TestMemory = _machine("Memory", MEMORY, Ordering.NONE, 60, hard_crash=True)
TestMemoryPerKey = _machine("MemoryPerKey", MEMORY, Ordering.PER_KEY, 100, hard_crash=True)
TestMemoryPerPartition = _machine(
    "MemoryPerPartition", MEMORY, Ordering.PER_PARTITION, 60, hard_crash=True
)
TestSqlite = _machine("Sqlite", SQLITE, Ordering.NONE, 15, hard_crash=True)
TestSqlitePerKey = _machine("SqlitePerKey", SQLITE, Ordering.PER_KEY, 25, hard_crash=True)
TestSqlitePerPartition = _machine(
    "SqlitePerPartition", SQLITE, Ordering.PER_PARTITION, 15, hard_crash=True
)


@pytest.fixture(autouse=True, scope="module")
def _small_steps() -> Any:
    """So that few messages reach what happens between steps."""
    patch = pytest.MonkeyPatch()
    patch.setattr(claiming, "SCAN", 3)
    patch.setattr(settling, "_UNBLOCK", 2)
    yield
    patch.undo()
