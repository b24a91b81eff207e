"""Converts errors of Protoflow to problems for clients."""

from __future__ import annotations

from protoflow.errors import (
    CapabilityError,
    ConnectionFailedError,
    DeadLetterNotFoundError,
    MissingExtraError,
    ProtoflowError,
    RegistrationError,
    TransportError,
)
from protoflow.web.response import Problem

_STATUSES: tuple[tuple[type[ProtoflowError], int], ...] = (
    (DeadLetterNotFoundError, 404),
    (RegistrationError, 404),
    (CapabilityError, 501),
    (MissingExtraError, 501),
    (ConnectionFailedError, 503),
    (TransportError, 502),
)


def problem_of(error: Exception) -> Problem:
    """Returns the problem for an error; an internal error becomes 500 without details."""
    if isinstance(error, Problem):
        return error
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Problem(status, str(error), code=error.code)
    return Problem(500, "the page failed; the log of the service says more")
