"""The health of a service, for probes and operators."""

from __future__ import annotations

from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Health:
    """Whether the process is alive and ready, and its problems.

    Attributes:
        live: no part of the runtime has died.
        ready: it is connected and subscribed, and no failure has paused a subscription.
        problems: the problems, by subscription or part, with those that do not affect `ready`.
    """

    live: bool
    ready: bool
    problems: dict[str, str]
