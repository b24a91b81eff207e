"""The events of a trace, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one process saw of the broker.

    Calls have two events, for the broker acts at some time between them: `publish` and
    `published`, `settle` and `settled`, `revoke` and `revoked`. The others are `join`, `deliver`,
    `lost`, `stopped`, `closed`, and of the outside world `crash` and `fault`.

    Attributes:
        time: seconds, by one clock of all processes.
        member: the process; empty is the outside world.
        kind: what happened.
        topic: where the message lies; of `join` the topic.
        group: topic and group, `<topic>/<group>`.
        message: the id of the message.
        key: its key.
        call: the number of the call in its process.
        delivery: the number of the delivery in its process.
        shard: the shard.
        place: the position in the shard; empty where the broker has none that lasts.
        attempt: failed runs, as the message or the settlement says.
        detail: the action of `settle`; the result of `published` and `settled`; the rest of others.
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
        """The event as a line."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({name: value for name, value in fields.items() if value}) + "\n"

    def __str__(self) -> str:
        if self.kind == "deliver":
            return f"it was delivered to {self.member}"
        if self.kind == "settled":
            return f"the settlement of {self.member} was answered {self.detail}"
        return f"{self.kind} by {self.member}" if self.member else self.kind


def read_trace(paths: Iterable[Path]) -> list[Event]:
    """Returns the events of all processes by time; a line that a crash cut off is left out."""
    found: list[Event] = []
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            found.append(Event(**{"time": 0.0, "member": "", "kind": "", **fields}))
    return sorted(found, key=lambda event: event.time)
