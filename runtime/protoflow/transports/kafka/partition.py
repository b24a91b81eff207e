"""One partition in this process: messages that were read, finished, and can be committed."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Collection
from typing import Any, Final

from aiokafka import TopicPartition

from protoflow.message import Delivery
from protoflow.transports.kafka.commit_metadata import REACH, CommitMetadata

#: Unclean starts without progress after which messages become suspects.
_TOLERATED_STARTS: Final = 2


class Partition:
    """A partition from its assignment until it is revoked.

    `watermark` is the oldest unfinished offset; it is what is committed, because every offset
    before it is finished. Offsets need not be consecutive: compaction and transactions leave gaps.

    Attributes:
        tp: topic and partition at the broker.
        shard: the name of the partition in deliveries.
        hold: seconds that each message waits here after the broker got it (retry topics).
        own: whether only the runtime writes here (retry topics).
        consumption: the consumption that gets its messages.
        atomic: whether transactions commit the progress.
        live: whether this process owns it; settlements after it moved away are lost.
        leaving: whether it is about to move away; messages that are given back then stay unhandled.
        dirty: whether progress must be committed.
        late: whether a commit failed or got no answer, and no later one was confirmed.
        position: the offset after the last one that was read.
        backlog: messages that were read and are not ready, because they are not due or paused.
        ready: messages that may be handed out.
        waiting: the number of messages that were given back and wait to be handed out again.
        capped_at: the number of handed-out messages when its share was full; None if it is not.
        mean_size: the mean size of the last handed-out messages, in bytes.
        paused: whether the runtime has paused it.
        resting: whether reading is stopped until messages are settled.
        isolated_until: messages below this offset are suspects.
        marks: for each offset that ran alone and did not end, the number of these runs.
        initial_partitions: the number of partitions when the group began with the topic.
        topic: the id of the topic.
    """

    __slots__ = (
        "_finished",
        "_floor",
        "_pending",
        "_prior_starts",
        "_redone",
        "atomic",
        "backlog",
        "capped_at",
        "consumption",
        "dirty",
        "hold",
        "initial_partitions",
        "isolated_until",
        "late",
        "leaving",
        "live",
        "marks",
        "mean_size",
        "own",
        "paused",
        "position",
        "ready",
        "resting",
        "shard",
        "topic",
        "tp",
        "waiting",
    )

    def __init__(
        self,
        tp: TopicPartition,
        shard: str | int,
        offset: int,
        metadata: CommitMetadata | None = None,
        *,
        hold: float = 0.0,
        own: bool = False,
        atomic: bool = False,
        writer: str = "",
        consumption: Any = None,  # Any: a Consumption, whose module imports this one
    ) -> None:
        self.tp = tp
        self.shard = shard
        self.hold = hold
        self.own = own
        self.atomic = atomic
        self.consumption = consumption
        self.live = True
        self.leaving = False
        self.dirty = False
        self.late = False
        self.position = offset
        self.backlog: deque[Delivery] = deque()
        self.ready: deque[Delivery] = deque()
        self.waiting = 0
        self.capped_at: int | None = None
        self.mean_size = 0.0
        self.paused = False
        self.resting = False
        self._floor = offset
        self._pending: deque[int] = deque()
        self._finished: set[int] = set()
        self._restore(metadata or CommitMetadata(), offset, writer)

    def _restore(self, metadata: CommitMetadata, offset: int, writer: str) -> None:
        self.isolated_until = metadata.isolated_until if metadata.isolated_until > offset else 0
        self.marks = {place: count for place, count in metadata.marks.items() if place >= offset}
        self.initial_partitions = metadata.initial_partitions
        self.topic = metadata.topic
        self._redone = set(metadata.finished)
        # If this process wrote the metadata without marking a normal end, its commit at the end
        # failed. But the process lives, so this start did not end abnormally.
        is_own = metadata.writer == writer != ""
        self._prior_starts = max(metadata.starts - is_own, 0)

    @property
    def watermark(self) -> int:
        """The oldest unfinished offset, which is committed."""
        return self._pending[0] if self._pending else self.position

    @property
    def unfinished(self) -> int:
        """The number of offsets between the watermark and the position, finished or not."""
        return len(self._pending)

    @property
    def unsettled(self) -> int:
        """The number of messages that were read and are not finished."""
        return len(self._pending) - len(self._finished)

    @property
    def handed_out(self) -> int:
        """The number of messages that the scheduler holds."""
        kept = len(self.ready) + len(self.backlog) + self.waiting
        return len(self._pending) - len(self._finished) - kept

    @property
    def is_suspicious(self) -> bool:
        """Whether enough earlier starts had no normal end, so that messages must be isolated."""
        return self._prior_starts >= _TOLERATED_STARTS

    def is_full(self, window: int) -> bool:
        """Whether enough messages were read, or as many offsets as metadata can store."""
        return len(self._pending) >= window or self.position - self.watermark >= REACH // 2

    def admit(self, offset: int) -> bool:
        """Adds an offset that was read; returns False if it was finished earlier."""
        self.position = offset + 1
        if offset in self._redone:
            self._redone.discard(offset)
            self.dirty = True
            if self._pending:
                self._pending.append(offset)
                self._finished.add(offset)
            return False
        self._pending.append(offset)
        return True

    def finish(self, offset: int) -> bool:
        """Counts an offset as finished; returns False if it was finished before."""
        pending = self._pending
        finished = self._finished
        if not pending or offset < pending[0] or offset in finished:
            return False
        self.dirty = True
        if offset != pending[0]:
            finished.add(offset)
            return True
        pending.popleft()
        while finished and pending and pending[0] in finished:
            finished.remove(pending.popleft())
        return True

    def is_done(self, offset: int) -> bool:
        """Whether an offset that was read is finished."""
        return not self._pending or offset < self._pending[0] or offset in self._finished

    def outlook(self, done: Collection[int], writer: str) -> tuple[int, CommitMetadata]:
        """Returns the offset and the metadata to commit when these messages are finished, too."""
        finished = self._finished.union(done)
        watermark = next((item for item in self._pending if item not in finished), self.position)
        metadata = self.metadata(writer, clean=False)
        return watermark, dataclasses.replace(
            metadata,
            starts=1 if watermark > self._floor else metadata.starts,
            marks={place: count for place, count in metadata.marks.items() if place not in done},
            finished={item for item in finished | self._redone if item > watermark},
        )

    def committed(self, offset: int, finished: Collection[int]) -> None:
        """Notes which offsets are finished, from the broker, after an answer was lost."""
        done = [item for item in self._pending if item < offset or item in finished]
        for item in done:
            self.finish(item)

    def advance(self, position: int) -> None:
        """Moves past offsets without a message, if no message is unfinished."""
        if not self._pending and position > self.position:
            self.position = position
            self.dirty = True

    def begin_isolation(self, span: int) -> None:
        """Makes the next messages suspects, as many as may have been in flight."""
        self.isolated_until = max(self.isolated_until, self.watermark + span)

    def is_suspect(self, offset: int) -> bool:
        """Whether a message must run alone."""
        return offset < self.isolated_until or offset in self.marks

    def trust(self) -> None:
        """Forgets the unclean starts, because no message can have been in flight."""
        self._prior_starts = 0

    def metadata(self, writer: str, *, clean: bool) -> CommitMetadata:
        """Returns the metadata to store; `clean` after a normal end."""
        watermark = self.watermark
        moved = watermark > self._floor
        if self.isolated_until and watermark >= self.isolated_until:
            self.isolated_until = 0
        if self.marks:
            self.marks = {
                place: count
                for place, count in self.marks.items()
                if place >= watermark and place not in self._finished
            }
        return CommitMetadata(
            writer=writer,
            starts=(0 if moved else self._prior_starts) + (not clean),
            isolated_until=self.isolated_until,
            marks=self.marks,
            initial_partitions=self.initial_partitions,
            topic=self.topic,
            finished=self._finished | self._redone,
        )
