"""Writes a DEBUG record for every run. The runtime itself logs failures."""

from __future__ import annotations

import logging
from typing import Any

from protoflow.codecs.plain import shown
from protoflow.codecs.printable import printable
from protoflow.context import Context
from protoflow.counted import counted
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Middleware, Next

_log = logging.getLogger("protoflow.messages")


def log_messages(*, payload: bool | None = None, logger: logging.Logger = _log) -> Middleware:
    """Writes a DEBUG record for each run; its fields are in `extra`, for formatters and structlog.

    Args:
        payload: show decoded messages with sensitive fields hidden; None means `log_payloads` of
            the config, which is False by default.
        logger: the logger of the records.
    """

    def log(next: Next, spec: HandlerSpec) -> Next:
        enabled, now = logger.isEnabledFor, spec.clock.monotonic
        with_payload = spec.config.log_payloads if payload is None else payload

        async def run(delivery: Delivery, context: Context) -> Outcome:
            if not enabled(logging.DEBUG):
                return await next(delivery, context)
            start = now()
            outcome = await next(delivery, context)
            seconds = now() - start
            try:
                _write(logger, spec, context, outcome, seconds, with_payload)
            except Exception as error:  # a logging error must not affect the message
                logger.debug(
                    "a message was not logged",
                    extra={"handler": spec.name, "error": type(error).__name__},
                )
            return outcome

        return run

    return log


def _write(
    logger: logging.Logger,
    spec: HandlerSpec,
    context: Context,
    outcome: Outcome,
    seconds: float,
    with_payload: bool,
) -> None:
    fields = _fields(spec, context, outcome, seconds)
    if with_payload:
        fields["payload"] = _payload(spec, context)
    logger.debug("handled", extra=fields)


def _fields(
    spec: HandlerSpec, context: Context, outcome: Outcome, seconds: float
) -> dict[str, Any]:
    return {
        "handler": spec.name,
        "topic": spec.topic,
        "group": spec.group,
        "message_id": printable(context.id),
        "correlation_id": context.correlation_id,
        "attempt": context.attempt,
        "outcome": type(outcome).__name__.lower(),
        "duration_ms": round(seconds * 1000, 3),
    }


def _payload(spec: HandlerSpec, context: Context) -> Any:
    items: tuple[Context, ...] | None = getattr(context, "items", None)
    sensitive = spec.message.sensitive if spec.message is not None else {}
    if items is not None:
        return [shown(item.decoded, sensitive) for item in items]
    if context.decoded is None:
        return counted(len(context.message.payload or b""), "byte")
    return shown(context.decoded, sensitive)
