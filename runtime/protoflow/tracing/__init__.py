"""Tracing with OpenTelemetry, if a tracer provider is configured.

OpenTelemetry is imported only if a provider is configured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from protoflow import wire

__all__ = ["current_ids", "find_provider", "within_trace"]


# Any: without OpenTelemetry there is no such type
def find_provider(given: Any = None) -> Any | None:
    """Returns the given tracer provider, or the global one; None if none is configured."""
    if given is None and not _maybe_configured():
        return None
    from protoflow.tracing.spans import usable_provider

    return usable_provider(given)


def current_ids() -> Mapping[str, str]:
    """Returns `trace_id` and `span_id` of the current span, for log records; empty without one."""
    if not _maybe_configured():
        return {}
    from protoflow.tracing.propagation import ids_of_current_span

    return ids_of_current_span()


def within_trace(headers: Mapping[str, str] | None) -> AbstractContextManager[object]:
    """Makes the span that the headers name the current one, so that log records name it, too."""
    if headers is None or wire.TRACEPARENT not in headers or not _maybe_configured():
        return nullcontext()
    from protoflow.tracing.propagation import attached

    return attached(headers)


def _maybe_configured() -> bool:
    # A process configures a provider by importing this module, or in its environment.
    return "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
