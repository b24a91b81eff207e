"""Which messages of a group a member may claim, in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush

from protoflow.contract.spec import Ordering
from protoflow.transports.file.group_state import Entry, GroupState

#: The lane of all messages with `PER_PARTITION`.
_ALL = -1


class ClaimQueue:
    """The entries of a state that nobody holds, by position.

    In an ordered group, a member may claim the next message of a lane if it holds all earlier ones
    of the lane and no later one. A message that waits for its time holds back its lane.

    Args:
        ordering: what makes a lane.
        member: the member that claims.
    """

    def __init__(self, ordering: Ordering, member: str) -> None:
        self._ordering = ordering
        self._member = member
        self._state = GroupState()
        self._reset()

    def next(self, state: GroupState, now: float) -> Entry | None:
        """Returns the next entry to claim; it stays where it is unless it is claimed then."""
        self._update(state, now)
        while self._ready:
            entry = state.entries.get(self._ready[0])
            if entry is not None and not entry.claim and self._may_claim(entry, now):
                return entry
            heappop(self._ready)
        return None

    def has_work(self, state: GroupState, now: float) -> bool:
        """Whether `next` may return another answer than the last time."""
        due = bool(self._due) and self._due[0][0] <= now
        touched = state.all_touched or bool(state.touched)
        return state is not self._state or touched or bool(self._ready) or due

    def waiting(self, now: float) -> float | None:
        """Returns the seconds until the next message is due; None: none waits for its time."""
        return max(0.0, self._due[0][0] - now) if self._due else None

    def _reset(self) -> None:
        self._ready: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._lanes: dict[int, list[int]] = {}
        self._lane_of: dict[int, int] = {}
        self._held: dict[int, set[int]] = {}

    def _update(self, state: GroupState, now: float) -> None:
        if state is not self._state or state.all_touched:
            self._state, state.all_touched = state, False
            self._reset()
            state.touched = [*state.entries]
        touched, state.touched = state.touched, []
        for position in touched:
            self._touch(position, now)
        while self._due and self._due[0][0] <= now:
            self._touch(heappop(self._due)[1], now)

    def _touch(self, position: int, now: float) -> None:
        entry = self._state.entries.get(position)
        if entry is not None and not entry.claim and entry.due > now:
            heappush(self._due, (entry.due, position))
        lane = self._lane_of.get(position) if entry is None else self._lane(entry)
        if lane is None:
            if entry is not None and not entry.claim and entry.due <= now:
                heappush(self._ready, position)
            return
        if entry is None:
            self._leave(lane, position)
        else:
            self._join(lane, entry)
        if (first := self._first_free(lane)) is not None:
            heappush(self._ready, first)

    def _join(self, lane: int, entry: Entry) -> None:
        position, held = entry.position, self._held.setdefault(lane, set())
        if position not in self._lane_of:
            self._lane_of[position] = lane
            insort(self._lanes.setdefault(lane, []), position)
        if entry.claim:
            held.add(position)
        else:
            held.discard(position)

    def _leave(self, lane: int, position: int) -> None:
        del self._lane_of[position]
        positions = self._lanes[lane]
        del positions[bisect_left(positions, position)]
        self._held[lane].discard(position)
        if not positions:
            del self._lanes[lane], self._held[lane]

    def _first_free(self, lane: int) -> int | None:
        held = self._held.get(lane, ())
        return next((each for each in self._lanes.get(lane, ()) if each not in held), None)

    def _may_claim(self, entry: Entry, now: float) -> bool:
        if entry.due > now:
            return False
        lane = self._lane_of.get(entry.position)
        if lane is None:
            return True
        entries, held = self._state.entries, self._held[lane]
        return self._first_free(lane) == entry.position and all(
            each < entry.position and entries[each].member == self._member for each in held
        )

    def _lane(self, entry: Entry) -> int | None:
        if self._ordering is Ordering.PER_PARTITION:
            return _ALL
        return entry.lane or None if self._ordering is Ordering.PER_KEY else None
