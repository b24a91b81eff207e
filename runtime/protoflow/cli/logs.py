"""Log records of `run`, on stderr: text for people, or one JSON object a line."""

from __future__ import annotations

import logging
import sys

from protoflow.observability.logs import JSONFormatter, TextFormatter


def configure(form: str, level: str) -> None:
    """Writes the records of all loggers from `level` on; `form` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    # Handlers of others stay: `opentelemetry-instrument` exports records.
    others = [one for one in root.handlers if not isinstance(one, logging.StreamHandler)]
    root.handlers[:] = [handler, *others]
    root.setLevel(level)
