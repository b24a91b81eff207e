"""A consumer group in memory: its unfinished messages and their order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message


class Member(Protocol):
    """One subscription of the group."""

    @property
    def gone(self) -> bool:
        """Whether its event loop was closed, so that it handles nothing."""
        ...

    def wake(self) -> None:
        """Wakes the member, because there may be a message to claim."""


class Entry:
    """A message that a group has not finished.

    `delivery` is the delivery that may settle it; every claim makes a new one, so an old one
    settles nothing. `due` is the earliest time to hand it out. `offered` is whether its lane has
    made it available to claims. `mark` counts the runs alone that began and did not end. `replayed`
    messages are made by the runtime only.
    """

    __slots__ = (
        "deliveries",
        "delivery",
        "due",
        "failures",
        "first_failure",
        "group",
        "lane",
        "mark",
        "member",
        "message",
        "offered",
        "replayed",
        "sequence",
        "size",
        "time",
    )

    def __init__(
        self, group: Group, message: Message, sequence: int, time: float, due: float, size: int
    ) -> None:
        self.group = group
        self.message = message
        self.sequence = sequence
        self.time = time
        self.due = due
        self.size = size
        self.lane = group.lane(message)
        self.delivery: Delivery | None = None
        self.member: Member | None = None
        self.offered = False
        self.deliveries = 0
        self.failures = 0
        self.first_failure = 0.0
        self.mark = 0
        self.replayed = False


class Lane:
    """The unfinished messages of one key that were examined. One member holds all held messages,
    and no other member gets a message before they are settled."""

    __slots__ = ("free", "held", "member")

    def __init__(self) -> None:
        self.free: list[tuple[int, Entry]] | None = None  # most lanes never have such messages
        self.held = 0
        self.member: Member | None = None

    def put_back(self, entry: Entry) -> None:
        """Puts an entry back by its sequence, to be handed out later."""
        if self.free is None:
            self.free = []
        heapq.heappush(self.free, (entry.sequence, entry))


class Group:
    """Hands out messages in their order of arrival, as `ordering` requires.

    `fresh` holds messages that were never examined, `returned` messages that may be handed out
    again, by sequence, `waiting` delayed messages, by due time, and `lanes` messages that wait for
    earlier ones of their key.
    """

    def __init__(self, topic: str, name: str, ordering: Ordering) -> None:
        self.topic = topic
        self.name = name
        self.ordering = ordering
        self.members: dict[Member, None] = {}
        self.size = 0
        self.fresh: deque[Entry] = deque()
        self._held: dict[int, Entry] = {}
        self._returned: list[tuple[int, Entry]] = []
        self._waiting: list[tuple[float, int, Entry]] = []
        self._lanes: dict[bytes, Lane] = {}

    def lane(self, message: Message) -> bytes | None:
        """Returns the lane of a message; None if it needs no order."""
        if self.ordering is Ordering.NONE:
            return None
        return b"" if self.ordering is Ordering.PER_PARTITION else message.key or None

    @property
    def next_due(self) -> float | None:
        """The time when the first waiting message is due."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def has_returned(self) -> bool:
        """Whether there are messages that were given back or held back."""
        return bool(self._returned or self._waiting)

    def unfinished(self) -> Iterator[Entry]:
        """Yields all unfinished messages, in no order."""
        yield from self.fresh
        yield from self._held.values()
        free = {id(entry): entry for _, entry in self._returned}
        free |= {id(entry): entry for _, _, entry in self._waiting}
        for lane in self._lanes.values():
            free |= {id(entry): entry for _, entry in lane.free or ()}
        yield from free.values()

    def claim(self, member: Member, limit: int, max_bytes: int, now: float) -> list[Delivery]:
        """Hands out up to `limit` messages; only the first may exceed `max_bytes`."""
        taken: list[Delivery] = []
        if self._waiting:
            self._promote(now)
        if self._returned:
            max_bytes = self._claim_returned(taken, member, limit, max_bytes, now)
        fresh = self.fresh
        while fresh and len(taken) < limit:
            entry = fresh[0]
            if entry.size > max_bytes and taken:
                break
            del fresh[0]
            if (entry.lane is None and entry.due <= now) or self._enter(entry, member, now):
                max_bytes -= entry.size
                taken.append(self._hand_out(entry, member))
        return taken

    def finish(self, entry: Entry) -> None:
        """Finishes the entry."""
        entry.delivery = None
        self.size -= 1
        del self._held[entry.sequence]
        if entry.lane is not None:
            self._leave(entry.lane)

    def give_back(self, entry: Entry, due: float, *, keep_mark: bool = False) -> None:
        """Makes the entry available again, at `due` or later."""
        if not keep_mark:
            entry.mark = 0
        entry.delivery = None
        entry.due = due
        del self._held[entry.sequence]
        if entry.lane is not None:
            self._lanes[entry.lane].put_back(entry)
            self._leave(entry.lane)
        elif due:
            heapq.heappush(self._waiting, (due, entry.sequence, entry))
        else:
            heapq.heappush(self._returned, (entry.sequence, entry))

    def remove_member(self, member: Member, *, killed: bool) -> None:
        """Gives back all messages of a member; start marks stay if it was killed."""
        self.members.pop(member, None)
        for entry in [entry for entry in self._held.values() if entry.member is member]:
            self.give_back(entry, 0.0, keep_mark=killed)

    def wake(self) -> None:
        """Wakes every member, because there may be messages to claim."""
        for member in tuple(self.members):
            member.wake()

    def remove_gone(self) -> None:
        """Treats members whose event loop was closed as killed."""
        for member in [member for member in self.members if member.gone]:
            self.remove_member(member, killed=True)

    def available(self, member: Member, now: float) -> int:
        """Returns the number of messages that a member could get now."""
        self._promote(now)
        entries = [*self.fresh, *(entry for _, entry in self._returned)]
        return sum(1 for entry in entries if entry.due <= now and self._may_have(entry, member))

    def _may_have(self, entry: Entry, member: Member) -> bool:
        lane = self._lanes.get(entry.lane) if entry.lane is not None else None
        return lane is None or not lane.held or lane.member is member

    def extend(self, entries: Iterable[Entry]) -> None:
        """Adds entries after all others."""
        before = len(self.fresh)
        self.fresh.extend(entries)
        self.size += len(self.fresh) - before

    def _hand_out(self, entry: Entry, member: Member) -> Delivery:
        entry.deliveries += 1
        entry.member = member
        self._held[entry.sequence] = entry
        entry.delivery = delivery = Delivery(
            message=entry.message,
            failures=entry.failures,
            first_failure=entry.first_failure,
            deliveries=entry.deliveries,
            position=entry.sequence,
            time=entry.time,
            size=entry.size,
            receipt=entry,
        )
        if entry.mark:
            delivery.suspect = True
        if entry.replayed:
            delivery.own_place = True
        return delivery

    def _claim_returned(
        self, taken: list[Delivery], member: Member, limit: int, max_bytes: int, now: float
    ) -> int:
        while self._returned and len(taken) < limit:
            entry = self._returned[0][1]
            if entry.size > max_bytes and taken:
                break
            heapq.heappop(self._returned)
            if entry.lane is None or self._take_head(entry, member, now):
                max_bytes -= entry.size
                taken.append(self._hand_out(entry, member))
        return max_bytes

    def _promote(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, sequence, entry = heapq.heappop(self._waiting)
            heapq.heappush(self._returned, (sequence, entry))

    def _enter(self, entry: Entry, member: Member, now: float) -> bool:
        """Whether a fresh entry may be handed out; otherwise stores it where it waits."""
        if entry.lane is None:
            heapq.heappush(self._waiting, (entry.due, entry.sequence, entry))
            return False
        lane = self._lanes.get(entry.lane)
        if lane is None:
            lane = self._lanes[entry.lane] = Lane()
        if entry.due <= now and not lane.free and (not lane.held or lane.member is member):
            lane.held += 1
            lane.member = member
            return True
        first = not lane.free
        lane.put_back(entry)
        if first and not lane.held:
            self._offer(entry)
        return False

    def _take_head(self, entry: Entry, member: Member, now: float) -> bool:
        """Whether an offered entry is still the first of its lane and may be handed out."""
        entry.offered = False
        lane = self._lanes[entry.lane or b""]
        if not lane.free or lane.free[0][1] is not entry or entry.due > now:
            return False
        if lane.held and lane.member is not member:
            return False
        heapq.heappop(lane.free)
        lane.held += 1
        lane.member = member
        if lane.free:
            self._offer(lane.free[0][1])
        return True

    def _leave(self, key: bytes) -> None:
        """Handles the settlement of a held message of a lane."""
        lane = self._lanes[key]
        lane.held -= 1
        if lane.held:
            return
        if lane.free:
            self._offer(lane.free[0][1])
        else:
            del self._lanes[key]

    def _offer(self, entry: Entry) -> None:
        """Makes the first message of a lane available when it is due."""
        if entry.offered:
            return
        entry.offered = True
        if entry.due:
            heapq.heappush(self._waiting, (entry.due, entry.sequence, entry))
        else:
            heapq.heappush(self._returned, (entry.sequence, entry))
