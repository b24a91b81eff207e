"""What every subject of a measurement shares: the meter, the message, the tracing."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

#: Messages before the meter starts: connections made, caches warm.
WARM = 2000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"


class Meter:
    """CPU of this process and wall time between the warm-up and the last message."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen = 0
        self.done = asyncio.Event()
        self._cpu = self._wall = 0.0
        self.result: dict[str, float] = {}

    def tick(self) -> None:
        """A message was handled."""
        self.seen += 1
        if self.seen == WARM:
            self._cpu, self._wall = time.process_time(), time.perf_counter()
        elif self.seen == WARM + self.count:
            cpu = (time.process_time() - self._cpu) / self.count
            wall = (time.perf_counter() - self._wall) / self.count
            self.result = {"cpu_us": cpu * 1e6, "wall_us": wall * 1e6}
            self.done.set()

    def report(self, **more: Any) -> None:
        """Prints the result for the runner."""
        print(json.dumps({**self.result, **more}), flush=True)


def traceparent(mode: str) -> str:
    """The header that every message carries; its flags decide whether a span is sampled."""
    return TRACEPARENT.format(flags="00" if mode == "sampled-out" else "01")


def tracing(mode: str) -> Any:
    """An SDK tracer provider whose exporter drops, or None."""
    if mode in ("untraced", "bare"):
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


def order(number: int, keys: int = 1000) -> dict[str, Any]:
    """The six fields of an order."""
    return {
        "order_id": str(number % keys),
        "customer": "c-1042",
        "sku": "sku-77",
        "quantity": 3,
        "cents": 1999,
        "paid": True,
    }
