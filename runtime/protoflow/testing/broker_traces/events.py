"""The events of a trace, one in each line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event that a process observed.

    Calls have two events, because the broker acts at some time between them: `publish` and
    `published`, `settle` and `settled`, `revoke` and `revoked`. The others are `join`, `deliver`,
    `lost`, `stopped` and `closed`. `crash` and `fault` come from outside of all processes.

    Attributes:
        time: seconds, by one clock of all processes.
        member: the process; empty for events from outside.
        kind: what happened.
        topic: the topic that holds the message; of `join`, the topic that is joined.
        group: topic and group, `<topic>/<group>`.
        message: the id of the message.
        key: the key of the message.
        call: the number of the call in its process.
        delivery: the number of the delivery in its process.
        shard: the shard.
        place: the position in the shard; empty if the broker has no lasting positions.
        attempt: the number of failed runs that the message or the settlement carries.
        detail: the action of `settle`, the result of `published` and `settled`, or other data.
    """

    time: float
    member: str
    kind: str
    topic: str = ""
    group: str = ""
    message: str = ""
    key: str = ""
    call: int = 0
    delivery: int = 0
    shard: str = ""
    place: str = ""
    attempt: int = 0
    detail: str = ""

    def line(self) -> str:
        """Returns the event as a line."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({name: value for name, value in fields.items() if value}) + "\n"

    def __str__(self) -> str:
        if self.kind == "deliver":
            return f"it was delivered to {self.member}"
        if self.kind == "settled":
            return f"the settlement of {self.member} was answered {self.detail}"
        return f"{self.kind} by {self.member}" if self.member else self.kind


def read_trace(paths: Iterable[Path]) -> list[Event]:
    """Returns the events of all processes by time; ignores lines that a crash cut off."""
    found: list[Event] = []
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            found.append(Event(**{"time": 0.0, "member": "", "kind": "", **fields}))
    return sorted(found, key=lambda event: event.time)
