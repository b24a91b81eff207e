"""Makes a span for every run if a tracer provider is configured."""

from __future__ import annotations

from typing import Any

from protoflow.pipeline import HandlerSpec, Middleware, Next
from protoflow.tracing import find_provider


def tracer(provider: Any = None) -> Middleware:
    """Creates spans by OpenTelemetry's conventions for messaging; reads and writes W3C headers.

    Args:
        provider: the tracer provider; by default the global one. Configure it before the service
            starts; without a provider the middleware is left out.
    """

    def trace(next: Next, spec: HandlerSpec) -> Next:
        found = find_provider(provider)
        if found is None:
            return next
        from protoflow.tracing.handling import HandlerTracing

        return HandlerTracing(found, spec).middleware(next)

    return trace
