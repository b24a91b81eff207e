"""The environment of programs that must know nothing of this checkout or this run of pytest."""

from __future__ import annotations

import os


def outside() -> dict[str, str]:
    """The environment without what means this checkout or this run of pytest (PYTEST_ADDOPTS)."""
    ours = ("PYTHONPATH", "PYTEST_", "PROTOFLOW_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
