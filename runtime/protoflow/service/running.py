"""The running subscriptions of a service, and the error that ended it."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.error_codes import NOT_RUNNING
from protoflow.errors import RegistrationError
from protoflow.scheduling.scheduler import Scheduler


class Running:
    """The state of a service that lifetime and reports share.

    Attributes:
        subscriptions: the running subscriptions.
        ended: those that ran until the service stopped; their counters are exported once more.
        started: whether everything runs and no stop has begun.
        crash: the error that ended a part of the runtime.
    """

    def __init__(self) -> None:
        self.subscriptions: Sequence[Scheduler] = ()
        self.ended: Sequence[Scheduler] = ()
        self.started = False
        self.crash: BaseException | None = None

    @property
    def active(self) -> bool:
        """Whether the service has started and not begun to stop."""
        return self.started or bool(self.subscriptions)

    def named(self, name: str) -> Scheduler:
        """Returns a subscription by its own name or a handler's. Raises RegistrationError."""
        for scheduler in self.subscriptions:
            handlers = (route.spec.name for route in scheduler.router.all)
            if name == scheduler.settings.name or name in handlers:
                return scheduler
        known = ", ".join(scheduler.settings.name for scheduler in self.subscriptions)
        raise RegistrationError(
            f"{name}: no such subscription runs; there are {known or 'none'}", code=NOT_RUNNING
        )

    def problems(self) -> dict[str, str]:
        """Returns the problems, by subscription or `service`."""
        problems = {
            scheduler.settings.name: "; ".join(scheduler.problems.values())
            for scheduler in self.subscriptions
            if scheduler.problems
        }
        if self.crash is not None:
            problems["service"] = f"a part of the runtime died: {type(self.crash).__name__}"
        elif not self.started:
            problems["service"] = "not started, or stopping"
        return problems
