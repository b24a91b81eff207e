"""A span around every run, where a tracer provider is configured."""

from __future__ import annotations

from typing import Any

from protoflow.pipeline import HandlerSpec, Middleware, Next
from protoflow.tracing import find_provider


def tracer(provider: Any = None) -> Middleware:
    """Spans by OpenTelemetry's conventions for messaging; W3C headers in and out.

    Args:
        provider: the tracer provider; the global one if not given. Configure that before the
            service starts: without one, handlers run without a trace of tracing.
    """

    def trace(next: Next, spec: HandlerSpec) -> Next:
        found = find_provider(provider)
        if found is None:
            return next
        from protoflow.tracing.handling import HandlerTracing

        return HandlerTracing(found, spec).middleware(next)

    return trace
