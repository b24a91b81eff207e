"""The acceptance suite for transports, run against this one."""

from pathlib import Path

import pytest
from protoflow.testing.transports import TransportTarget
from protoflow.testing.transports.cases import *  # noqa: F403


@pytest.fixture
def target(tmp_path: Path) -> TransportTarget:
    """An empty directory for each case."""
    return TransportTarget(url=f"directory://{tmp_path}/broker", options={"sync": False})
