"""Tracing with OpenTelemetry, for who has configured a tracer provider.

Nothing of OpenTelemetry is imported before that is known.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["find_provider"]


def find_provider(given: Any = None) -> Any | None:  # Any: no OpenTelemetry type without it
    """The tracer provider: the given one, else the global one; None if nobody configured one."""
    if given is None and not _maybe_configured():
        return None
    from protoflow.tracing.spans import usable_provider

    return usable_provider(given)


def _maybe_configured() -> bool:
    # To configure one, a process must have imported this, or say so in its environment.
    return "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
