"""What is wrong with one subscription; its listener hears of the first problem and of the end."""

from __future__ import annotations

from protoflow.transport.interface import SubscriptionListener


class Health:
    """The problems of a subscription.

    Args:
        name: the subscription's name.
    """

    def __init__(self, name: str, listener: SubscriptionListener) -> None:
        self._name = name
        self._listener = listener
        self._problems: dict[object, str] = {}
        self._final = False

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self._problems

    def report(self, source: object, problem: str | None) -> None:
        """A source of problems has one, or none any more."""
        if problem is None:
            if self._problems.pop(source, None) is not None and not self._problems:
                self._listener.health_changed(True, "")
            return
        first = not self._problems
        if self._final and not first:
            return
        self._problems[source] = problem
        if first:
            self._listener.health_changed(False, f"{self._name}: {problem}")

    def fail(self, problem: str) -> None:
        """It is over; nothing makes it well again."""
        self._problems = {self: problem}
        self._final = True
        self._listener.health_changed(False, f"{self._name}: {problem}")
