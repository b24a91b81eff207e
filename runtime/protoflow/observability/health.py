"""The health of a service, as probes and operators read it."""

from __future__ import annotations

from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Health:
    """Whether the process should live, and whether it does its work.

    Attributes:
        live: no part of the runtime has died.
        ready: connected, subscribed, no subscription paused by a failure.
        problems: what is wrong, by subscription or part.
    """

    live: bool
    ready: bool
    problems: dict[str, str]
