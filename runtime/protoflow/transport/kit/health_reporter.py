"""The problems of a subscription, reported when the first begins and the last ends."""

from __future__ import annotations

from protoflow.transport.interface import SubscriptionListener


class HealthReporter:
    """Keeps the problems by cause, and reports changes of health to the listener.

    Args:
        listener: its `health_changed` is called.
        name: the prefix of each detail, or empty.
    """

    def __init__(self, listener: SubscriptionListener, name: str = "") -> None:
        self._listener = listener
        self._prefix = f"{name}: " if name else ""
        self._problems: dict[object, str] = {}
        self._failed = False

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return not self._problems

    @property
    def detail(self) -> str:
        """The oldest problem; empty without one."""
        return next(iter(self._problems.values()), "")

    def set(self, problem: object, detail: str | None) -> None:
        """Sets the detail of a problem, or ends it with None."""
        problems = self._problems
        if detail is not None:
            begins = not problems
            problems[problem] = detail
            if begins:
                self._listener.health_changed(False, self._prefix + detail)
        elif problems and problems.pop(problem, None) is not None and not problems:
            self._listener.health_changed(True, "")

    def fail(self, detail: str) -> None:
        """Reports a permanent problem, in place of earlier ones."""
        if not self._failed:
            self._failed = True
            self._problems[self] = detail
            self._listener.health_changed(False, self._prefix + detail)
