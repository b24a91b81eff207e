"""The environment of programs that cases start."""

from __future__ import annotations

import os
import sys


def program_environment() -> dict[str, str]:
    """Returns this process's environment, with its import path and without `PROTOFLOW_*`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROTOFLOW_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
