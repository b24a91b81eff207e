"""The automaton of one message in one group: the states in which its copies may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from protoflow.testing.broker_traces.events import Event
from protoflow.testing.broker_traces.rules import Rules

#: The most readings that are followed. There are several, since the broker acts between events.
_MOST_READINGS = 256
#: Seconds for which a broker that deduplicates certainly recognises a repeated publish.
_WINDOW = 100.0


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """One copy of the message at the broker, or a process's belief about it.

    Attributes:
        state: as in `rules.TRANSITIONS`. A `ghost` is a delivery that its holder has lost and may
            not settle; `answered` is a delivery whose settlement the broker has done.
        by: the holder: member, and the number of the delivery or call.
        attempt: the number of failed runs that the broker has stored.
        place: shard and position; empty until it is known.
        action: the action of the current settlement.
        after: the number of failed runs after this settlement.
    """

    state: str
    by: tuple[str, int] = ("", 0)
    attempt: int = 0
    place: str = ""
    action: str = ""
    after: int = 0


Reading = tuple[Copy, ...]


class Refused(Exception):  # noqa: N818  what happened
    """No reading of the trace allows the event."""


class MessageAutomaton:
    """All readings of the events of one message so far.

    Args:
        rules: the rules of the broker.
        disturbed: whether a process or the broker was disturbed between two times.
        lease: seconds.
    """

    def __init__(
        self, rules: Rules, disturbed: Callable[[str, float, float], bool], lease: float
    ) -> None:
        self.readings: frozenset[Reading] = frozenset({()})
        self.finished = False
        #: The number of reading steps so far, which is the cost of the check.
        self.steps = 0
        self._rules = rules
        self._disturbed = disturbed
        self._lease = lease
        self._since: dict[tuple[str, int], float] = {}
        self._leaving: set[tuple[str, int]] = set()
        self._published_at: dict[int, float] = {}
        self._repetitions: set[int] = set()

    def __str__(self) -> str:
        described = {
            " and ".join(_WORDS[copy.state].format(copy.by[0]) for copy in reading)
            or "settled, or never published"
            for reading in self.readings
        }
        return "; or ".join(sorted(described)[:4])

    def apply(self, event: Event) -> None:
        """Advances every reading by one event. Raises Refused if no reading allows it."""
        step: Callable[[Reading, Event], Iterator[Reading]] = getattr(self, f"_{event.kind}")
        found: set[Reading] = set()
        for reading in self.readings:
            found |= {tuple(sorted(each)) for each in step(reading, event)}
        self.steps += len(found)
        if not found:
            raise Refused
        self.readings = frozenset(sorted(found, key=len)[:_MOST_READINGS])
        by = (event.member, event.delivery)
        if event.kind == "deliver":
            self._since[by] = event.time
        elif event.kind == "publish":
            last = self._published_at.get(event.attempt)
            if last is not None and event.time - last < _WINDOW:
                self._repetitions.add(event.call)
            self._published_at[event.attempt] = event.time
        elif event.kind in ("stopped", "revoke"):
            self._leaving.add(by)

    # One method for each kind of event; it yields the readings that may follow a reading.

    def _publish(self, reading: Reading, event: Event) -> Iterator[Reading]:
        yield (*reading, Copy("coming", (event.member, -event.call), event.attempt))

    def _published(self, reading: Reading, event: Event) -> Iterator[Reading]:
        coming = _by(reading, "coming", (event.member, -event.call))
        if coming is None or event.detail == "unknown":
            yield reading  # it was delivered in the meantime, or will be
            return
        if event.detail == "refused":
            yield from self._to(reading, coming, "refused")
            return
        again = [*self._to(reading, coming, "taken for a repetition")]
        if again and event.call in self._repetitions:
            yield from again
            if not any(_same_publish(copy, coming) for copy in again[0]):
                return  # the first publish was certainly stored
        yield from self._to(reading, coming, "stored")

    def _deliver(self, reading: Reading, event: Event) -> Iterator[Reading]:
        place = f"{event.shard}/{event.place}" if self._rules.positions else ""
        by = (event.member, event.delivery)
        for copy in dict.fromkeys(reading):
            for free, left in self._freed(reading, copy, event):
                same = not place or free.place in ("", place)
                if free.attempt == event.attempt and same:
                    for state in self._rules.allows("free", "delivered"):
                        held = Copy(state, by, event.attempt, place)
                        yield (*_without(left, free), held)

    def _freed(self, reading: Reading, copy: Copy, event: Event) -> Iterator[tuple[Copy, Reading]]:
        """Yields the readings in which a copy has become free without an event."""
        allows, free = (
            self._rules.allows,
            replace(copy, state="free", by=("", 0), action="", after=0),
        )
        ways: list[tuple[Copy, tuple[Copy, ...]]] = []
        ghost = Copy("ghost", copy.by)
        if copy.state == "free":
            ways.append((copy, ()))
        elif copy.state == "coming" and "free" in allows("coming", "stored"):
            ways.append((free, ()))
        elif copy.state in ("held", "acting") and self._may_take(copy, event):
            if "free" in allows(copy.state, "taken away"):
                ways.append((free, (ghost,)))
        elif copy.state == "soft" and self._forgotten(copy, event):
            ways.append((free, ()))
        if copy.state == "acting" and copy.action != "ACK":
            given = replace(free, attempt=copy.after)
            ways.append((given, (Copy("answered", copy.by, action=copy.action),)))
        for found, more in ways:
            yield found, (*_without(reading, copy), found, *more)

    def _may_take(self, copy: Copy, event: Event) -> bool:
        if copy.by in self._leaving or not self._rules.expires:
            return True
        # The delivery was lent before this event, and is renewed every third of a lease.
        return event.time - self._since.get(copy.by, event.time) >= self._lease / 2

    def _lent(self, by: tuple[str, int], event: Event) -> float:
        """Returns the earliest time at which it was lent; a delivery may wait in its process."""
        since = self._since.get(by, event.time)
        return since - self._lease if self._rules.expires else since

    def _forgotten(self, copy: Copy, event: Event) -> bool:
        since = self._lent(copy.by, event)
        allowed = "free" in self._rules.allows("soft", "forgotten")
        return allowed and self._disturbed(copy.by[0], since, event.time)

    def _settle(self, reading: Reading, event: Event) -> Iterator[Reading]:
        held = _by(reading, "held", (event.member, event.delivery))
        if held is None:
            yield reading  # the process has lost it, or the broker has answered before
            return
        after = event.attempt if self._rules.persists else held.attempt
        for state in self._rules.allows("held", "settle called"):
            acting = replace(held, state=state, action=event.detail, after=after)
            yield (*_without(reading, held), acting)

    def _settled(self, reading: Reading, event: Event) -> Iterator[Reading]:
        by = (event.member, event.delivery)
        ghost = _by(reading, "ghost", by)
        answered = _by(reading, "answered", by)
        acting = _by(reading, "acting", by)
        if event.detail == "DONE":
            since = self._lent(by, event)
            unnoticed = not self._rules.confirms and self._disturbed(by[0], since, event.time)
            if ghost is not None and not unnoticed:
                return  # another process may hold it, although it was settled
            kept = tuple(copy for copy in reading if copy not in (ghost, answered))
            yield from self._applied(kept, acting) if acting is not None else (kept,)
        elif event.detail == "LOST":
            kept = tuple(copy for copy in reading if copy not in (ghost, answered))
            yield from self._given_up(kept, acting) if acting is not None else (kept,)
        elif acting is None:
            yield reading
        else:
            for state in self._rules.allows("acting", "settlement lost"):
                yield (*_without(reading, acting), replace(acting, state=state, action="", after=0))
            if event.detail == "UNKNOWN":
                done = Copy("answered", by, action=acting.action)
                yield from ((*each, done) for each in self._applied(reading, acting))

    def _applied(self, reading: Reading, acting: Copy) -> Iterator[Reading]:
        """Yields the readings in which the broker did the settlement."""
        what = "acknowledged" if acting.action == "ACK" else "given back"
        yield from self._to(reading, acting, what)

    def _given_up(self, reading: Reading, copy: Copy) -> Iterator[Reading]:
        """Yields the readings after the holder's end: a settlement may have been done."""
        if copy.state == "acting":
            yield from self._applied(reading, copy)
            copy_free = replace(copy, state="free", by=("", 0), action="", after=0)
            yield (*_without(reading, copy), copy_free)
        else:
            yield from self._to(reading, copy, "given up by its holder")

    def _lost(self, reading: Reading, event: Event) -> Iterator[Reading]:
        by = (event.member, event.delivery)
        kept = tuple(copy for copy in reading if copy.by != by or copy.state in _OWN)
        own = [copy for copy in kept if copy.by == by and copy.state in ("held", "acting")]
        yield from self._given_up(kept, own[0]) if own else (kept,)

    _crash = _closed = _revoked = _lost

    def _stopped(self, reading: Reading, event: Event) -> Iterator[Reading]:
        yield reading

    _revoke = _stopped

    def _to(self, reading: Reading, copy: Copy, happening: str) -> Iterator[Reading]:
        rest = _without(reading, copy)
        for state in self._rules.allows(copy.state, happening):
            if state == "gone":
                yield rest
            elif state == "soft":
                yield (*rest, replace(copy, state=state, action="", after=0))
            else:
                attempt = copy.after if happening == "given back" else copy.attempt
                yield (*rest, Copy(state, attempt=attempt, place=copy.place))


_WORDS = {
    "coming": "not confirmed to be stored",
    "free": "held by nobody",
    "held": "held by {}",
    "acting": "being settled by {}",
    "soft": "settled by {}",
    "ghost": "lost by {}",
    "answered": "settled by {}",
}
#: States of copies at the broker; other states are beliefs of a process.
_OWN = ("coming", "free", "held", "acting", "soft")


def _by(reading: Reading, state: str, by: tuple[str, int]) -> Copy | None:
    return next((copy for copy in reading if copy.state == state and copy.by == by), None)


def _same_publish(copy: Copy, other: Copy) -> bool:
    return (copy.state, copy.attempt) == (other.state, other.attempt)


def _without(reading: Reading, copy: Copy) -> Reading:
    at = reading.index(copy)
    return reading[:at] + reading[at + 1 :]
