"""Why a subscription is not ready, and why it starts no runs."""

from __future__ import annotations

from collections.abc import Callable


class Gates:
    """The reasons for which a subscription starts no run.

    Attributes:
        reasons: no run starts while there is a reason.
        closed: whether there is a reason.
        on_opened: called when the last gate opens.
    """

    __slots__ = ("closed", "on_opened", "reasons")

    def __init__(self) -> None:
        self.reasons: set[str] = set()
        self.closed = False
        self.on_opened: Callable[[], None] = _nothing

    def close(self, reason: str) -> None:
        """Starts no run until the gate is opened for the same reason."""
        self.reasons.add(reason)
        self.closed = True

    def open(self, reason: str) -> None:
        """Ends `close`."""
        self.reasons.discard(reason)
        self.closed = bool(self.reasons)
        if not self.closed:
            self.on_opened()


class Readiness:
    """The problems of one subscription, which turn readiness red, and its gates.

    Attributes:
        problems: the details, by reason.
        gates: the reasons for which no run starts.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.gates = Gates()

    def mark_unready(self, reason: str, detail: str | None) -> None:
        """Turns readiness red for a reason; None as the detail ends that."""
        if detail is None:
            self.problems.pop(reason, None)
        else:
            self.problems[reason] = detail

    def pause_for(self, reason: str, paused: bool) -> None:
        """Starts no run and turns readiness red for a reason; False ends this."""
        self.mark_unready(reason, reason if paused else None)
        if paused:
            self.gates.close(reason)
        else:
            self.gates.open(reason)


def _nothing() -> None:
    pass
