"""One bucket of a group with an order, in the memory of the member that owns it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from protoflow.message import Delivery
from protoflow.transports.postgresql.positions import Opening, Position, Seen, next_batch


class Returned(NamedTuple):
    """A delivery that was given back, or whose lane waits."""

    position: int
    due: float
    delivery: Delivery
    lane: Hashable


@dataclass(slots=True)
class Batch:
    """A batch of the log: what of it is read, and what of that is not finished."""

    start: Position
    read: int
    unfinished: dict[int, None] = field(default_factory=dict)
    #: Finished, but behind something that is not.
    done: set[int] = field(default_factory=set)
    exhausted: bool = False

    def watermark(self, more: Collection[int] = ()) -> int:
        """The number up to which everything is finished, `more` counted in."""
        for seq in self.unfinished:
            if seq not in more:
                return seq - 1
        return self.read

    def finish(self, seq: int) -> None:
        """A message is finished."""
        self.unfinished.pop(seq, None)
        self.done.add(seq)
        mark = self.watermark()
        if self.done and min(self.done) <= mark:
            self.done = {each for each in self.done if each > mark}


class Bucket:
    """Reads on in batches, and remembers what is finished.

    A message that was moved to the table `waiting` keeps its place in the log: only when the log
    is read up to there, the row may be handed out, and holds up its lane.

    Attributes:
        number: which bucket it is.
        crashes: how many owners died since the position moved.
        returned: what was given back and is not handed out, by position.
        settling: lanes of which something is being given back, and how often.
        aside: by lane, the positions of rows in the table `waiting` that are not claimed.
        ahead: claimed rows of the table, by places in the log that are not read yet.
        leaving: whether it goes to another member.
        seen: what the log looked like when the batch was opened; None: it is not yet.
        lost: whether it is no longer this member's.
    """

    def __init__(
        self, number: int, position: Position, done: Collection[int], crashes: int
    ) -> None:
        self.number = number
        self.crashes = crashes
        self.returned: list[Returned] = []
        self._lanes: dict[Hashable, int] = {}
        self.settling: dict[Hashable, int] = {}
        self.aside: dict[Hashable, list[int]] = {}
        self.ahead: dict[int, Delivery] = {}
        self.leaving = False
        self.seen: Seen | None = None
        self.lost = False
        self._skipped = {*done}
        self._batches = deque([Batch(position, position.seq)])
        self._homes: dict[int, Batch] = {}

    @property
    def position(self) -> Position:
        """Where to read on."""
        batch = self._batches[-1]
        return batch.start._replace(seq=batch.read)

    @property
    def exhausted(self) -> bool:
        """Whether the batch has no more."""
        return self._batches[-1].exhausted

    @property
    def window(self) -> int:
        """How many messages are read and not finished, or finished behind such."""
        return sum(len(each.unfinished) + len(each.done) for each in self._batches)

    def read(self, seq: int) -> bool:
        """A message was read; whether it is to be handled."""
        batch = self._batches[-1]
        batch.read = max(batch.read, seq)
        if seq in self._skipped:
            self._skipped.discard(seq)
            batch.finish(seq)
            return False
        batch.unfinished[seq] = None
        self._homes[seq] = batch
        return True

    def exhaust(self) -> None:
        """The batch has no more."""
        self._batches[-1].exhausted = True

    def open(self, opening: Opening) -> None:
        """Begins the next batch; the one before must be exhausted."""
        self.seen = Seen(opening.upto, opening.open)
        last = self._batches[-1]
        following = Batch(next_batch(last.start, opening), 0)
        if len(self._batches) > 1 and not last.unfinished and not last.done:
            self._batches.pop()  # nothing in it: it need not be remembered
        self._batches.append(following)
        self._drop_finished()

    def holds(self, seq: int) -> bool:
        """Whether a message is read and not finished."""
        return seq in self._homes

    def finish(self, seqs: Collection[int]) -> None:
        """Messages are finished. If the position moves, earlier crashes are forgotten."""
        before = self.progress(())[0] if self.crashes else None
        for seq in seqs:
            if (batch := self._homes.pop(seq, None)) is not None:
                batch.finish(seq)
        self._drop_finished()
        if before is not None and self.progress(())[0] != before:
            self.crashes = 0

    def begin_settling(self, lane: Hashable) -> None:
        """A delivery of a lane is being given back: its lane is blocked."""
        self.settling[lane] = self.settling.get(lane, 0) + 1

    def end_settling(self, lane: Hashable) -> None:
        """The settlement of `begin_settling` has ended."""
        left = self.settling.get(lane, 1) - 1
        if left:
            self.settling[lane] = left
        else:
            self.settling.pop(lane, None)

    def progress(self, more: Collection[int]) -> tuple[Position, list[int]]:
        """Returns the position up to which everything is finished, and what is finished beyond,
        both as if `more` were finished."""
        batches = iter(self._batches)
        batch = next(batches)
        last = self._batches[-1]
        while (
            batch is not last and batch.exhausted and all(each in more for each in batch.unfinished)
        ):
            batch = next(batches)
        mark = batch.watermark(more)
        done = [each for each in self._done(batch, more) if each > mark]
        for later in batches:
            done += self._done(later, more)
        done += self._skipped
        return batch.start._replace(seq=mark), done

    def give_back(self, delivery: Delivery, lane: Hashable, due: float = 0.0) -> None:
        """A delivery is handed out again, not before `due`."""
        position = int(delivery.position)
        if lane is not None and position in self._skipped:
            self.ahead[position] = delivery
            return
        returned = Returned(position, due, delivery, lane)
        insort(self.returned, returned, key=_position)
        if lane is not None:
            self._lanes[lane] = self._lanes.get(lane, 0) + 1

    def take_returned(self, now: float, most: int) -> list[Delivery]:
        """Removes and returns what was given back and may be handed out, in turn."""
        taken, kept = self._sort_out(now, most)
        if taken:
            self._keep(kept)
        return [each.delivery for each in taken]

    def count_free(self, now: float) -> int:
        """Returns how many of the messages that were given back may be handed out."""
        return len(self._sort_out(now, len(self.returned))[0])

    def is_blocked(self, lane: Hashable, position: int) -> bool:
        """Whether an earlier message of the lane waits here, or is being given back."""
        return lane is not None and (
            lane in self._lanes or lane in self.settling or self._waits_aside(lane, position)
        )

    def put_aside(self, moved: Collection[Returned]) -> None:
        """Notes that messages wait in the table `waiting` from now on."""
        gone = {each.position for each in moved}
        self._keep([each for each in self.returned if each.position not in gone])
        for each in moved:
            if each.lane is not None:
                insort(self.aside.setdefault(each.lane, []), each.position)
        self.finish(gone)

    def take_up(self, lane: Hashable, position: int) -> None:
        """Notes that a row of the table `waiting` is claimed."""
        positions = self.aside.get(lane, [])
        index = bisect_left(positions, position)
        if positions[index : index + 1] == [position]:
            del positions[index]
            if not positions:
                del self.aside[lane]

    def blocking(self) -> list[int]:
        """Returns the positions of rows in the table that messages here wait for."""
        lanes = {each.lane for each in self.returned if each.lane in self.aside}
        return [self.aside[lane][0] for lane in lanes]

    def _sort_out(self, now: float, most: int) -> tuple[list[Returned], list[Returned]]:
        """Splits `returned` into messages that may be handed out and messages that stay."""
        taken: list[Returned] = []
        kept: list[Returned] = []
        blocked = {*self.settling}
        for each in self.returned:
            if (
                each.due <= now
                and len(taken) < most
                and each.lane not in blocked
                and not self._waits_aside(each.lane, each.position)
            ):
                taken.append(each)
                continue
            kept.append(each)
            if each.lane is not None:
                blocked.add(each.lane)
        return taken, kept

    def _waits_aside(self, lane: Hashable, position: int) -> bool:
        positions = self.aside.get(lane)
        return positions is not None and any(
            each not in self._skipped for each in takewhile(position.__gt__, positions)
        )

    def _keep(self, kept: list[Returned]) -> None:
        self.returned = kept
        self._lanes = {}
        for each in kept:
            if each.lane is not None:
                self._lanes[each.lane] = self._lanes.get(each.lane, 0) + 1

    def _drop_finished(self) -> None:
        batches = self._batches
        while len(batches) > 1 and batches[0].exhausted and not batches[0].unfinished:
            batches.popleft()

    @staticmethod
    def _done(batch: Batch, more: Collection[int]) -> Iterator[int]:
        yield from batch.done
        for seq in batch.unfinished:
            if seq in more:
                yield seq


def _position(returned: Returned) -> int:
    return returned.position
