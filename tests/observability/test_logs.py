"""How `run` shows a log record as text."""

from __future__ import annotations

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
from protoflow import Context
from protoflow.middleware import Dependencies
from protoflow.observability.logs import JSONFormatter, TextFormatter
from protoflow.tracing import current_ids, find_provider

from tests.middleware.harness import put, running, worker


def line(text: str, **fields: object) -> str:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": text, **fields})
    return TextFormatter().format(record).partition(" ")[2]


def test_fields_follow_the_first_line() -> None:
    assert line("it failed\n  trace", topic="orders") == "INFO n: it failed topic=orders\n  trace"


def test_what_the_text_says_is_no_field_again() -> None:
    assert line("order A-27 failed", id="A-27", topic="t") == "INFO n: order A-27 failed topic=t"


def test_a_short_value_is_always_shown() -> None:
    assert line("again in 1 s", attempt=1) == "INFO n: again in 1 s attempt=1"


def test_a_field_cannot_break_the_line() -> None:
    assert "\n" not in line("text", value="two\nlines")


def test_records_within_a_span_name_it_once() -> None:
    record = logging.makeLogRecord({"msg": "billed", "otelTraceID": "0", "otelSpanID": "0"})
    assert "trace" not in JSONFormatter().format(record)
    span = NonRecordingSpan(SpanContext(7, 9, is_remote=False))
    with use_span(span):
        line = json.loads(JSONFormatter().format(record))
        text = TextFormatter().format(record)
    assert (line["trace_id"], line["span_id"]) == (f"{7:032x}", f"{9:016x}")
    assert set(line) == {"time", "level", "logger", "message", "trace_id", "span_id"}
    assert f"trace_id={7:032x} span_id={9:016x}" in text


async def test_failures_are_logged_within_the_trace_of_their_run() -> None:
    provider, seen = TracerProvider(), []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.levelname, dict(current_ids()).get("trace_id")))

    async def broken(_message: object, _context: Context) -> None:
        runs.append(dict(current_ids())["trace_id"])
        raise ValueError("no")

    runs: list[str] = []
    handler = Seen()
    logging.getLogger("protoflow.handler").addHandler(handler)
    try:
        dependencies = Dependencies(tracer_provider=provider)
        async with running(worker(broken), dependencies=dependencies) as service:
            await put(service, "a")
    finally:
        logging.getLogger("protoflow.handler").removeHandler(handler)
    assert len(set(runs)) == 1
    assert seen[-1] == ("ERROR", runs[0])
    assert seen[0] == ("WARNING", runs[0])


def test_a_disabled_sdk_is_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_provider(TracerProvider()) is not None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert find_provider(TracerProvider()) is None
