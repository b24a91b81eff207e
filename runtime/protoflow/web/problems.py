"""Errors of Protoflow as problems for clients."""

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
    """Returns what a client gets of an error; 500 without a word of why for what is a fault."""
    if isinstance(error, Problem):
        return error
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Problem(status, str(error))
    return Problem(500, "the page failed; the log of the service says more")
