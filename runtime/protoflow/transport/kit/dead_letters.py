"""List, show, replay and purge over a `DeadLetterStore`, with the same errors everywhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from protoflow.error_codes import ARGUMENT, coded
from protoflow.errors import DeadLetterNotFoundError, ReplayError, TransportError
from protoflow.transport.dead_letters import DeadLetterRecord, DeadLetterScan, DeadLetterStore
from protoflow.transport.kit.dead_letter_selection import (
    PORTION,
    DeadLetterFilter,
    not_found,
    selected,
)
from protoflow.transport.kit.replay import left_behind, may_pass

#: The number of dead letters that a ReplayError lists.
_MOST_NAMED = 1000


class DeadLetterObserver(Protocol):
    """Is informed of counts, replays and purges, for statistics."""

    def counted(self, topic: str, count: int) -> None:
        """Receives the number of waiting dead letters."""

    def replayed(self, topic: str, count: int, ids: Sequence[str], to: str) -> None:
        """Receives the number of replayed dead letters, the ids of the first thousand, and the
        target if it was not their group."""

    def purged(self, topic: str, count: int, ids: Sequence[str]) -> None:
        """Receives the number of purged dead letters and the ids of the first thousand. There are
        no ids if all were purged."""


class DeadLetters:
    """Counts, lists, shows, replays and purges dead letters.

    Topics are dead-letter topics, namespace included; ids are message ids.

    Args:
        store: the transport's store.
        topics: the allowed topics; None allows all. Other topics raise DeadLetterNotFoundError.
        observer: is informed of counts, replays and purges.
    """

    def __init__(
        self,
        store: DeadLetterStore,
        *,
        topics: Collection[str] | None = None,
        observer: DeadLetterObserver | None = None,
    ) -> None:
        self._store = store
        self._topics = topics
        self._observer = observer

    @property
    def topics(self) -> Sequence[str]:
        """The allowed topics, sorted; empty if all are allowed."""
        return tuple(sorted(self._topics or ()))

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        self._check(topic)
        count = await self._store.count(topic)
        if self._observer is not None:
            self._observer.counted(topic, count)
        return count

    async def list(
        self,
        topic: str,
        *,
        limit: int = 100,
        after: str = "",
        filter: DeadLetterFilter | None = None,
    ) -> Sequence[DeadLetterRecord]:
        """Returns one page of dead letters, the oldest first.

        Args:
            topic: the dead-letter topic.
            limit: the size of the page.
            after: the position of the last record of the previous page.
            filter: selects dead letters.

        Raises:
            ValueError: `after` is not a position.
        """
        self._check(topic)
        found: list[DeadLetterRecord] = []
        async with self._store.scan(topic, after=after) as scan:
            while (room := limit - len(found)) > 0:
                records = await scan.take(PORTION if filter else min(PORTION, room))
                if not records:
                    break
                found += [each for each in records if filter is None or filter.matches(each)][:room]
        return found

    async def show(self, topic: str, id: str) -> DeadLetterRecord:
        """Returns the oldest dead letter with this id. Raises DeadLetterNotFoundError."""
        self._check(topic)
        async with self._store.scan(topic, ids=(id,)) as scan:
            while records := await scan.take(PORTION):
                for record in records:
                    if record.message.id == id:
                        return record
        raise not_found(topic, (id,))

    async def replay(
        self,
        topic: str,
        ids: Collection[str] | None = None,
        *,
        to_origin: bool = False,
        to: str = "",
        filter: DeadLetterFilter | None = None,
        reprocess: bool = False,
    ) -> int:
        """Replays dead letters to the group that failed; ids are kept and attempts reset.

        Dead letters of one key keep their order: if one fails with a temporary error, the later
        ones of its key are left too. All others are tried.

        Args:
            topic: the dead-letter topic.
            ids: the dead letters to replay; None means all.
            to_origin: publishes to the original topic instead, where every group gets them.
            to: publishes to this topic instead, namespace included.
            filter: selects dead letters.
            reprocess: handles messages again that an inbox has recorded as handled; otherwise they
                are skipped.

        Returns:
            The number of replayed dead letters.

        Raises:
            ValueError: `reprocess` with a topic that is not the group's own.
            DeadLetterNotFoundError: no dead letter has one of the ids; nothing was replayed.
            ReplayError: some dead letters are left; it holds the number of replayed ones, and the
                reason for each that is left.
            TransportError: the broker failed before anything was replayed.
        """
        self._check(topic)
        if reprocess and (to_origin or to):
            raise ValueError(
                coded(
                    "reprocess is for the group that failed: leave out to_origin and to", ARGUMENT
                )
            )
        run = _Replay(topic, to_origin=to_origin, to=to, reprocess=reprocess)
        try:
            async with self._store.scan(topic, ids=ids) as scan:
                async for records in selected(scan, topic, ids, filter):
                    if not await run.replay(scan, records):
                        break
        except TransportError as error:
            run.stopped(error)
        finally:
            if run.replayed and self._observer is not None:
                where = to or ("the original topic" if to_origin else "")
                self._observer.replayed(topic, run.replayed, run.ids, where)
        return run.result()

    async def purge(
        self,
        topic: str,
        ids: Collection[str] | None = None,
        *,
        filter: DeadLetterFilter | None = None,
    ) -> int:
        """Removes dead letters (without ids and filter: all); returns how many.

        Raises:
            DeadLetterNotFoundError: no dead letter has one of the ids; nothing was removed.
        """
        self._check(topic)
        purged = 0
        removed: list[str] = []
        try:
            if ids is None and filter is None:
                purged = await self._store.clear(topic)
            else:
                async with self._store.scan(topic, ids=ids) as scan:
                    async for records in selected(scan, topic, ids, filter):
                        await scan.remove(records)
                        purged += len(records)
                        _name(removed, records)
        finally:
            if purged and self._observer is not None:
                self._observer.purged(topic, purged, removed)
        return purged

    def _check(self, topic: str) -> None:
        if self._topics is not None and topic not in self._topics:
            raise DeadLetterNotFoundError(f"{topic}: no handler has dead letters there")


class _Replay:
    """The results of a replay so far."""

    def __init__(self, topic: str, *, to_origin: bool, to: str, reprocess: bool) -> None:
        self.replayed = 0
        #: The first ids of the replayed dead letters.
        self.ids: list[str] = []
        self._topic = topic
        self._to_origin = to_origin or bool(to)
        self._to = to
        self._reprocess = reprocess
        self._left: dict[str, Exception] = {}
        self._more = 0
        self._error: Exception | None = None
        self._failed_in_row = 0
        #: Keys with an earlier dead letter that failed for a temporary reason.
        self._blocked: set[bytes] = set()

    async def replay(self, scan: DeadLetterScan, records: Sequence[DeadLetterRecord]) -> bool:
        """Replays a portion. False means that all fail at the moment, so the caller should stop."""
        free: list[DeadLetterRecord] = []
        for record in records:
            if record.message.key in self._blocked:
                self._leave(record, left_behind())
            else:
                free.append(record)
        failure: Exception | None = None
        if self._to:
            free = [replace(record, destination=self._to) for record in free]
        if self._reprocess:
            free = [replace(record, reprocess=True) for record in free]
        results = await scan.replay(free, to_origin=self._to_origin) if free else ()
        for record, error in zip(free, results, strict=True):
            if error is None:
                self.replayed += 1
                _name(self.ids, (record,))
                self._failed_in_row = 0
            # otherwise another process removed it
            elif not isinstance(error, DeadLetterNotFoundError):
                self._leave(record, error)
                if may_pass(error):
                    failure = error
                    self._failed_in_row += 1
                    if record.message.key is not None:
                        self._blocked.add(record.message.key)
        if self._failed_in_row >= PORTION:
            self._error = failure
        return self._error is None

    def stopped(self, error: TransportError) -> None:
        """Notes that the broker failed; dead letters that were not read are left."""
        self._error = error

    def result(self) -> int:
        """Returns how many were replayed. Raises ReplayError, or the broker's own error."""
        if not (self._left or self._error):
            return self.replayed
        if self._error is not None and not (self._left or self.replayed):
            raise self._error
        raise ReplayError(
            self._topic, self.replayed, self._left, self._more, self._error
        ) from self._error

    def _leave(self, record: DeadLetterRecord, error: Exception) -> None:
        if len(self._left) < _MOST_NAMED:
            self._left[record.message.id] = error
        else:
            self._more += 1


def _name(ids: list[str], records: Sequence[DeadLetterRecord]) -> None:
    """Adds the ids of records, up to the limit."""
    ids += [record.message.id for record in records[: _MOST_NAMED - len(ids)]]
