"""The state of a group: how far it has read, and what is not settled of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from protoflow.error_codes import OTHER_VERSION
from protoflow.errors import TransportError

_VERSION: Final = 1
#: The number of touched positions above which looking at all entries is better.
_MOST_TOUCHED: Final = 10_000
_NAMES: Final = frozenset(
    ("state", "read", "move", "alive", "gone", "claim", "ack", "back", "mark")
)


@dataclass(slots=True)
class Entry:
    """A message that was read and is not settled.

    Attributes:
        position: its position in the topic.
        lane: the checksum of its key; 0: it has none.
        claim: the number of the claim that holds it; 0: nobody does.
        member: who holds it.
        due: when it may be claimed, in seconds since the epoch.
        deliveries: how often it was claimed.
        failures: failed runs.
        first_failure: the time of the first, in seconds since the epoch.
        marks: runs alone that began and did not end.
    """

    position: int
    lane: int = 0
    claim: int = 0
    member: str = ""
    due: float = 0.0
    deliveries: int = 0
    failures: int = 0
    first_failure: float = 0.0
    marks: int = 0


class GroupState:
    """The state, and the changes that have led to it.

    A change is JSON: `[name, ...]`. The name is that of a method here, without its underscore.

    Attributes:
        cursor: the position of the next message to read.
        sequence: the number of the last message that was read; 0: none was.
        time: its time; 0.0: none was.
        entries: what is not settled, by position.
        members: until when each member lives, in seconds since the epoch.
        touched: the positions whose entries were changed; their reader clears it.
        all_touched: whether `touched` was too long, so any entry may have changed; the same reader
            clears it.
    """

    def __init__(self) -> None:
        self.cursor = 0
        self.sequence = 0
        self.time = 0.0
        self.entries: dict[int, Entry] = {}
        self.members: dict[str, float] = {}
        self.touched: list[int] = []
        self.all_touched = False
        self._claims = 0
        self._changes: list[Any] = []

    @property
    def low(self) -> int:
        """The first position that is still needed."""
        return min(self.entries, default=self.cursor)

    def change(self, name: str, *arguments: Any) -> None:
        """Makes a change, and keeps it for the journal."""
        self._changes.append([name, *arguments])
        self._method(name)(*arguments)

    def claim(self, member: str, position: int) -> Entry:
        """Claims an entry for a member, and returns it."""
        last: list[Any] = self._changes[-1] if self._changes else [None]
        if last[0] == "claim" and last[1] == member:  # one change for many
            last[2].append(position)
            self._claim(member, (position,))
        else:
            self.change("claim", member, [position])
        return self.entries[position]

    def replay(self, changes: Iterable[Sequence[Any]]) -> None:
        """Makes the changes of a journal again."""
        for name, *arguments in changes:
            self._method(name)(*arguments)
        if len(self.touched) > _MOST_TOUCHED:  # a member that claims nothing would gather them
            self.touched.clear()
            self.all_touched = True

    def taken_changes(self) -> list[Any]:
        """Returns the changes that are not in the journal yet."""
        changes, self._changes = self._changes, []
        return changes

    def snapshot(self) -> list[Any]:
        """Returns the whole state as one change."""
        entries = [astuple(entry) for entry in self.entries.values()]
        read = [self.cursor, self.sequence, self.time]
        return ["state", _VERSION, read, self._claims, self.members, entries]

    def expired(self, now: float) -> list[str]:
        """Returns the members whose leases have ended."""
        return [member for member, until in self.members.items() if until < now]

    def _method(self, name: str) -> Callable[..., None]:
        if name not in _NAMES:
            raise TransportError(
                f"the journal has a change {name!r:.40} of another version of Protoflow",
                code=OTHER_VERSION,
            )
        method: Callable[..., None] = getattr(self, f"_{name}")
        return method

    def _state(
        self,
        version: int,
        read: Sequence[Any],
        claims: int,
        members: dict[str, float],
        entries: Iterable[Sequence[Any]],
    ) -> None:
        if version != _VERSION:
            raise TransportError(
                f"the journal is of version {version}, this Protoflow knows 1", code=OTHER_VERSION
            )
        (self.cursor, self.sequence, self.time), self._claims = read, claims
        self.members = dict(members)
        self.entries = {each[0]: Entry(*each) for each in entries}
        self.touched = [*self.entries]

    def _read(
        self, cursor: int, sequence: int, time: float, added: Iterable[Sequence[Any]]
    ) -> None:
        """Messages were read: position, lane and due of each that is for this group."""
        self.cursor, self.sequence, self.time = cursor, sequence, time
        for position, lane, due in added:
            self.entries[position] = Entry(position, lane, due=due)
            self.touched.append(position)

    def _move(self, cursor: int, sequence: int) -> None:
        """The position was lost, and the group goes on elsewhere."""
        self.cursor, self.sequence, self.time = cursor, sequence, 0.0
        self.touched += self.entries
        self.entries = {}

    def _alive(self, member: str, until: float) -> None:
        self.members[member] = until

    def _gone(self, member: str) -> None:
        """A member has left or was killed; what it held is free."""
        self.members.pop(member, None)
        for entry in self.entries.values():
            if entry.claim and entry.member == member:
                self._free(entry)

    def _claim(self, member: str, positions: Iterable[int]) -> None:
        for position in positions:
            self._claims += 1
            entry = self.entries[position]
            entry.claim, entry.member = self._claims, member
            entry.deliveries += 1
            self.touched.append(position)

    def _ack(self, positions: Iterable[int]) -> None:
        for position in positions:
            del self.entries[position]
            self.touched.append(position)

    def _back(
        self, position: int, due: float, deliveries: int, failures: int, first_failure: float
    ) -> None:
        entry = self.entries[position]
        entry.due, entry.deliveries = due, deliveries
        entry.failures, entry.first_failure = failures, first_failure
        self._free(entry)

    def _mark(self, position: int, marks: int) -> None:
        self.entries[position].marks = marks

    def _free(self, entry: Entry) -> None:
        entry.claim, entry.member = 0, ""
        self.touched.append(entry.position)
