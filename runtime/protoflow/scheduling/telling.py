"""What became of a message, in the log: without a word of the message itself."""

from __future__ import annotations

import logging
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

_log = logging.getLogger("protoflow.handler")


def sensitive(spec: HandlerSpec) -> Mapping[str, Sequence[str]]:
    """The fields of a handler's input that no text may show, by type."""
    return spec.message.sensitive if spec.message is not None else {}


def evidence_of(job: Job, decoded: Any) -> Sequence[Any]:
    """What a text may quote: the message as it came, for a handler may have changed or cleared
    the one that it got, and that one."""
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


def tell(level: int, what: str, job: Job, outcome: Outcome, decoded: Any) -> None:
    """Logs what became of a message; `decoded` is the message, to redact by."""
    if not _log.isEnabledFor(level):
        return
    spec = job.route.spec
    cause = outcome.__cause__ or outcome
    hidden = sensitive(spec)
    evidence = evidence_of(job, decoded)
    text = error_text(cause, evidence, hidden)
    detail = ""
    if level >= logging.ERROR and outcome.__cause__ is not None:
        detail = "\n" + traceback_text(cause, evidence, hidden).rstrip()
    _log.log(
        level,
        "%s: %s %s: %s%s%s",
        spec.name,
        printable(job.message.id),
        what,
        type(cause).__name__,
        f": {text}" if text else "",
        detail,
        extra={
            "handler": spec.name,
            "topic": spec.topic,
            "message_id": job.message.id,
            "attempt": job.delivery.failures,
        },
    )
