"""Log records of `run`, on stderr: text for people, or one JSON object a line."""

from __future__ import annotations

import datetime
import json
import logging
import sys

from protoflow.codecs.printable import printable

#: The most characters of a field that are shown.
_LONGEST = 2000
#: A shorter value may occur in the text by chance.
_SHORT = 4
#: The attributes that every record has; all others were passed as `extra`.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def configure(form: str, level: str) -> None:
    """Writes the records of all loggers from `level` on; `form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


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
    """Formats a record as one line of JSON, with times in UTC."""

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
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
