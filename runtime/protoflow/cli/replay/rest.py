"""What a replay has left, so that another one can continue."""

from __future__ import annotations

from protoflow.contract.spec import Start
from protoflow.topic_replay import Entry, Status
from protoflow.transport.topic_reader import Point


class Rest:
    """Notes the first message of each partition that was not handled.

    Args:
        start: where the replay began.
    """

    def __init__(self, start: Start | Point) -> None:
        self._start = start
        self._first: dict[str, str] = {}
        #: The last message of each partition that was read.
        self._last: dict[str, str] = {}

    def add(self, entry: Entry, status: Status) -> None:
        """Notes what became of a message."""
        shard, _, position = entry.record.position.rpartition("/")
        self._last[shard] = position
        if status in (Status.FAILED, Status.NOT_RUN):
            self._first.setdefault(shard, position)

    def places(self, *, all_read: bool) -> list[str]:
        """Returns where to continue. Messages that were not read follow the last one of their
        partition, which is handled again, because only the broker knows the next position."""
        first = self._first if all_read else self._last | self._first
        found = [f"{shard}/{position}" if shard else position for shard, position in first.items()]
        if not all_read and self._has_partitions and not isinstance(self._start, Start | float):
            named = {part.strip().rpartition("/")[0]: part.strip() for part in self._parts()}
            found += [part for shard, part in named.items() if shard not in self._last]
        return found

    def hides_partitions(self, *, all_read: bool) -> bool:
        """Whether there may be partitions of which nothing was read, so that they have no place."""
        return not all_read and self._has_partitions and isinstance(self._start, Start | float)

    @property
    def _has_partitions(self) -> bool:
        return any(self._last)

    def _parts(self) -> list[str]:
        return str(self._start).split(",")
