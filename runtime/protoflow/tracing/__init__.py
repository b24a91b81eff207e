"""Tracing with OpenTelemetry, if a tracer provider is configured.

OpenTelemetry is imported only if a provider is configured.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["find_provider"]


# Any: without OpenTelemetry there is no such type
def find_provider(given: Any = None) -> Any | None:
    """Returns the given tracer provider, or the global one; None if none is configured."""
    if given is None and not _maybe_configured():
        return None
    from protoflow.tracing.spans import usable_provider

    return usable_provider(given)


def _maybe_configured() -> bool:
    # A process configures a provider by importing this module, or in its environment.
    return "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
