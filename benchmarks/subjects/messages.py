"""The message that is sent, its headers, and the tracing of who handles it."""

from __future__ import annotations

import json
from typing import Any

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"


def order(number: int, keys: int = 1000, stamp: str = "c-1042") -> dict[str, Any]:
    """The six fields of an order; a stamp says when it was sent."""
    return {
        "order_id": str(number % keys),
        "customer": stamp,
        "sku": "sku-77",
        "quantity": 3,
        "cents": 1999,
        "paid": True,
    }


def json_body(number: int, stamp: str = "c-1042") -> bytes:
    """An order as JSON."""
    return json.dumps(order(number, stamp=stamp)).encode()


def traceparent(mode: str) -> str:
    """The header that every message carries; its flags decide whether a span is sampled."""
    return TRACEPARENT.format(flags="00" if mode == "sampled-out" else "01")


def metadata(mode: str) -> dict[str, str]:
    """What we send beside the attributes."""
    return {"traceparent": traceparent(mode), "correlation_id": "req-1"}


def event_headers() -> dict[str, str]:
    """The headers of what a raw client sends: as many as we send."""
    return {
        "ce_id": "01J00000000000000000000000",
        "ce_type": "bench.v1.Order",
        "ce_source": "bench",
        "ce_specversion": "1.0",
        "content-type": "application/protobuf",
        **metadata("traced"),
    }


def json_headers(mode: str) -> dict[str, str]:
    """The headers of what FastStream gets."""
    return {**metadata(mode), "content-type": "application/json"}


def attach(mode: str) -> None:
    """Makes the span of the headers the current one, for who takes it from there."""
    if mode == "untraced":
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent(mode)}
    context.attach(TraceContextTextMapPropagator().extract(carrier))


def tracing(mode: str) -> Any:
    """An SDK tracer provider whose exporter drops, or None."""
    if mode == "untraced":
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Drop(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()  # parent-based: what the header says is what is sampled
    provider.add_span_processor(BatchSpanProcessor(Drop()))
    trace.set_tracer_provider(provider)
    return provider
