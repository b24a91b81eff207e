"""The events of a simulation; equal seeds give equal events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Event:
    """One event.

    Attributes:
        time: the virtual time.
        process: the process that it happened in, or `broker` or `client`.
        what: what happened, in one or two words.
        message: the id of the message, or empty.
        detail: further data.
    """

    time: float
    process: str
    what: str
    message: str
    detail: str

    def __str__(self) -> str:
        about = f" {self.message}" if self.message else ""
        detail = f"  {self.detail}" if self.detail else ""
        return f"{self.time:12.6f}  {self.process:<14} {self.what:<18}{about}{detail}"


class Trace:
    """The events of one run of a seed, in order."""

    def __init__(self) -> None:
        self._events: list[tuple[float, str, str, str, str]] = []
        self._closed = False

    def add(
        self, time: float, process: str, what: str, message: str = "", detail: str = ""
    ) -> None:
        """Adds an event."""
        if not self._closed:
            self._events.append((time, process, what, message, detail))

    def close(self) -> None:
        """Ends the trace: later events are ignored."""
        self._closed = True

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return (Event(*each) for each in self._events)

    def of(self, message: str) -> list[Event]:
        """Returns the events of one message, and the faults that happened between them."""
        found = [each for each in self if each.message == message]
        if not found:
            return []
        first, last = found[0].time, found[-1].time
        return [
            each
            for each in self
            if each.message == message
            or (each.what.startswith(("fault", "crash", "start")) and first <= each.time <= last)
        ]

    def text(self) -> str:
        """Returns the whole trace, one line for each event."""
        return "".join(f"{event}\n" for event in self)


def divergence(one: Trace, other: Trace) -> str | None:
    """Returns the first difference between two runs of a seed; None if there is none."""
    for number, (first, second) in enumerate(zip(one, other, strict=False), 1):
        if first != second:
            return f"event {number}:\n    {first}\n    {second}"
    if len(one) != len(other):
        return f"event {min(len(one), len(other)) + 1}: one of the runs has ended"
    return None
