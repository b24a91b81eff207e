"""Exit codes: one table for all commands."""

from __future__ import annotations

import enum

from protoflow.errors import (
    ProtoflowError,
    PublishRefusedError,
    SchemaRegistryError,
    TopologyError,
    TransportError,
)


class ExitCode(enum.IntEnum):
    """The meaning of the exit code of a command."""

    DONE = 0
    #: Stale files, a breaking change, a failed check.
    FINDING = 1
    #: Wrong usage, wrong configuration, or not supported by the transport.
    USAGE = 2
    #: The broker, the service or the schema registry cannot be reached, or refuses the credentials.
    UNREACHABLE = 3
    #: Only part of the work is done; the report lists the rest.
    PARTLY = 4
    #: An internal error of Protoflow.
    INTERNAL = 5
    INTERRUPTED = 130


def code_of(error: ProtoflowError) -> ExitCode:
    """Returns the exit code of a command that ended with this error."""
    # PublishRefusedError: the message is too large, or this broker cannot store it.
    if isinstance(error, TopologyError | PublishRefusedError):
        return ExitCode.USAGE
    if isinstance(error, TransportError | SchemaRegistryError):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE
