"""Log records of outcomes; they contain no sensitive field of the message."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from protoflow import wire
from protoflow.codecs.payload import decode
from protoflow.codecs.printable import printable
from protoflow.codecs.redaction import error_text, traceback_text
from protoflow.errors import DecodeError
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec
from protoflow.scheduling.job import Job
from protoflow.tracing import within_trace

_log = logging.getLogger("protoflow.handler")

#: The number of characters of an error text that are kept for the dashboard.
_LONGEST_KEPT = 500


def sensitive(spec: HandlerSpec) -> Mapping[str, Sequence[str]]:
    """Returns the sensitive fields of a handler's input, by type."""
    return spec.message.sensitive if spec.message is not None else {}


def evidence_of(job: Job, decoded: Any) -> Sequence[Any]:
    """Returns the message as received and as the handler left it, for redaction."""
    contract = job.route.spec.message
    payload = job.message.payload
    if contract is None or not contract.sensitive or payload is None:
        return ()
    try:
        content_type = job.message.metadata.get(wire.CONTENT_TYPE)
        came: Any = decode(payload, content_type, contract.message_class)
    except DecodeError:
        came = None
    return (came, decoded)


def reported_text(error: BaseException, decoded: Any, job: Job) -> str:
    """Returns the error's text without the values of sensitive fields; empty if redaction fails."""
    try:
        return error_text(error, evidence_of(job, decoded), sensitive(job.route.spec))
    except Exception:
        return ""


def log_outcome(level: int, what: str, job: Job, outcome: Outcome, decoded: Any) -> None:
    """Logs and journals the outcome of a run; `decoded` is the message for redaction."""
    spec = job.route.spec
    enabled = _log.isEnabledFor(level)
    if not enabled and spec.journal is None:
        return
    cause = outcome.__cause__ or outcome
    text = reported_text(cause, decoded, job)
    error = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
    spec.stats.recent_errors.append((time.time(), error[:_LONGEST_KEPT]))
    if spec.journal is not None:
        spec.journal.failed(job.message, job.delivery.failures, error, what=what)
    if not enabled:
        return
    detail = ""
    if level >= logging.ERROR and outcome.__cause__ is not None:
        detail = _traceback(cause, decoded, job)
    with within_trace(job.delivery.hop):
        _write(level, what, job, type(cause).__name__, text, detail)


def _write(level: int, what: str, job: Job, error: str, text: str, detail: str) -> None:
    spec, message_id = job.route.spec, printable(job.message.id)
    _log.log(
        level,
        "%s: %s %s: %s%s%s",
        spec.name,
        message_id,
        what,
        error,
        f": {text}" if text else "",
        detail,
        extra={
            "handler": spec.name,
            "topic": spec.topic,
            "message_id": message_id,
            "attempt": job.delivery.failures,
            "error": error,
            "error_message": text,
            "correlation_id": printable(
                job.message.metadata.get(wire.CORRELATION_ID) or job.message.id
            ),
        },
    )


def _traceback(error: BaseException, decoded: Any, job: Job) -> str:
    try:
        text = traceback_text(error, evidence_of(job, decoded), sensitive(job.route.spec))
    except Exception:
        return ""
    return "\n" + text.rstrip()
