"""Formats of log records: text for people, or one JSON object a line; both show all fields."""

from __future__ import annotations

import datetime
import json
import logging

from protoflow.codecs.printable import printable
from protoflow.tracing import current_ids

#: The most characters of a field that are shown.
_LONGEST = 2000
#: A shorter value may occur in the text by chance.
_SHORT = 4
#: The attributes that every record has; all others were passed as `extra`.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
#: What OpenTelemetry's instrumentation of `logging` adds; the ids are shown by their own names.
_INSTRUMENTED = {"otelSpanID", "otelTraceID", "otelTraceSampled", "otelServiceName"}


class TextFormatter(logging.Formatter):
    """Formats `12:03:04 INFO protoflow.service: text name=value` without repeated values."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base's name
        """Returns the line, with the fields of the record."""
        first, newline, rest = super().formatMessage(record).partition("\n")
        fields = [
            f"{name}={printable(text, _LONGEST)}"
            for name, value in _extra(record).items()
            if len(text := str(value)) < _SHORT or text not in first
        ]
        return " ".join([first, *fields]) + newline + rest


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with times in UTC.

    A record that is written within a span of OpenTelemetry has its `trace_id` and `span_id`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    hidden = _STANDARD | _INSTRUMENTED
    fields = {name: value for name, value in vars(record).items() if name not in hidden}
    return {**current_ids(), **fields}
