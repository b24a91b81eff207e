"""Reads and writes W3C trace context and baggage (https://www.w3.org/TR/trace-context/).

This is own code because the propagator of the API takes three times as long per message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from protoflow import wire
from protoflow.errors import MissingExtraError

try:
    from opentelemetry.baggage import get_all
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.trace import (
        NonRecordingSpan,
        Span,
        SpanContext,
        TraceFlags,
        TraceState,
        get_current_span,
        set_span_in_context,
    )
except ImportError as error:
    raise MissingExtraError("tracing", "opentelemetry") from error

_FORMAT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: The known trace flags: sampled (1) and random trace id (2).
_FLAGS: Final = tuple(TraceFlags(value) for value in range(4))
_NO_STATE: Final = TraceState()
_ROOT: Final = Context()
_BAGGAGE = W3CBaggagePropagator()


def span_context(traceparent: str, tracestate: str | None) -> SpanContext | None:
    """Returns the remote span that the headers name; None if they are malformed."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Version 00 has no more parts; ff is forbidden (section 3.2.2.1).
    if version == "ff" or (version == "00" and rest):
        return None
    context = SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=_FLAGS[int(flags, 16) & 3],
        trace_state=TraceState.from_header([tracestate]) if tracestate else _NO_STATE,
    )
    return context if context.is_valid else None


def extract(metadata: Mapping[str, str]) -> SpanContext | None:
    """Returns the span in which a message was sent; None if it names none."""
    traceparent = metadata.get(wire.TRACEPARENT)
    if traceparent is None:
        return None
    return span_context(traceparent, metadata.get(wire.TRACESTATE))


def context_in(parent: SpanContext | None, metadata: Mapping[str, str]) -> Context:
    """Returns the context below a remote span, with the received baggage."""
    context = _ROOT
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(parent), context)
    if wire.BAGGAGE in metadata:
        context = _BAGGAGE.extract(metadata, context)
    return context


def headers_of(span: Span, context: Context | None = None) -> dict[str, str]:
    """Returns the headers of a span, with the baggage of a context (None: the current one)."""
    of = span.get_span_context()
    headers = {wire.TRACEPARENT: f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"}
    if of.trace_state:
        headers[wire.TRACESTATE] = of.trace_state.to_header()
    within = get_current() if context is None else context
    # A context that only holds the span has no baggage; asking would cost as much as the rest.
    if len(within) > 1 and get_all(within):
        _BAGGAGE.inject(headers, within)
    return headers


def ids_of_current_span() -> Mapping[str, str]:
    """Returns the ids of the current span; empty if there is none.

    The names are those of https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/
    """
    current = get_current_span().get_span_context()
    if not current.is_valid:
        return {}
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}


@contextmanager
def attached(headers: Mapping[str, str]) -> Iterator[None]:
    """Makes the span that the headers name the current one."""
    token = attach(context_in(extract(headers), {}))
    try:
        yield
    finally:
        detach(token)
