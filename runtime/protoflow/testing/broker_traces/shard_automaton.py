"""The automata of a shard: the order of each key, and the order of positions."""

from __future__ import annotations

from dataclasses import dataclass, field

from protoflow.testing.broker_traces.events import Event

#: After these events a process reads a shard from the position of the group.
_ENDS = ("revoke", "revoked", "lost", "crash", "closed", "stopped")


@dataclass(slots=True)
class _Turn:
    """A message and its position in the order of its key."""

    before: str = ""
    holder: str = ""
    done: bool = False
    stored: bool = False


class KeyOrder:
    """Checks that an earlier message of a key is done, or held by the same process."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._last: dict[str, str] = {}

    def apply(self, event: Event) -> str | None:
        """Advances by one event; returns the disagreement, or None."""
        turn = self._turns.setdefault(event.message, _Turn())
        if event.kind == "publish" and event.key and not turn.stored:
            last = self._last.get(event.key, "")
            turn.before = last if last != event.message else turn.before
        elif event.kind == "published" and event.detail == "stored" and not turn.stored:
            turn.stored = True
            if event.key:
                self._last[event.key] = event.message
        elif event.kind == "settle":
            turn.done = turn.done or event.detail == "ACK"
            turn.holder = turn.holder if event.detail == "ACK" else ""
        elif event.kind in ("lost", "crash", "closed", "revoked"):
            turn.holder = "" if turn.holder == event.member else turn.holder
        elif event.kind == "deliver":
            before = self._turns.get(turn.before)
            turn.holder = event.member
            if before is not None and not before.done and before.holder != event.member:
                where = f"held by {before.holder}" if before.holder else "held by nobody"
                return f"{turn.before} of the same key is before it, not settled and {where}"
        return None


@dataclass(slots=True)
class _Reader:
    """The deliveries of a process from a shard."""

    last: int = -1
    returned: set[int] = field(default_factory=set)


class ShardOrder:
    """A process gets the messages of a shard by position, except those that it gave back."""

    def __init__(self) -> None:
        self._readers: dict[str, _Reader] = {}

    def apply(self, event: Event) -> str | None:
        """Advances by one event; returns the disagreement, or None."""
        reader = self._readers.setdefault(event.member, _Reader())
        if event.kind in _ENDS or (event.kind == "settled" and event.detail == "LOST"):
            del self._readers[event.member]
        elif event.kind == "settle" and event.detail != "ACK" and event.place.isdigit():
            reader.returned.add(int(event.place))
        elif event.kind == "deliver" and event.place.isdigit():
            place, last = int(event.place), reader.last
            if place in reader.returned:
                reader.returned.remove(place)
            elif place <= last:
                return f"position {place} comes after position {last}, and was not given back"
            reader.last = max(last, place)
        return None
