"""The answers of a transport to submissions and settlements."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from protoflow.errors import PublishError, TransportError

_log = logging.getLogger("protoflow.publisher")


def failure_of(answer: asyncio.Future[Any], what: str, count: int) -> TransportError | None:
    """Returns the error if an answer does not have this many results, or None."""
    if answer.cancelled():
        return PublishError(f"{what} was cancelled, because the transport closed")
    error = answer.exception()
    if error is None:
        results = answer.result()
        if len(results) == count:
            return None
        error = RuntimeError(f"{len(results)} results for {count} entries")
    if isinstance(error, TransportError):
        return error
    _log.error(
        "the transport failed", extra={"call": what, "error": f"{type(error).__name__}: {error}"}
    )
    failure = PublishError(f"{what} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
