"""How long an orchestrator waits after SIGTERM before it kills the process."""

from __future__ import annotations

import math

from protoflow.config import Config

#: Seconds after the end of the shutdown.
_MARGIN = 10


def grace_period(config: Config) -> int:
    """Returns the seconds between SIGTERM and SIGKILL: the shutdown ends before."""
    return math.ceil(config.shutdown_timeout) + _MARGIN
