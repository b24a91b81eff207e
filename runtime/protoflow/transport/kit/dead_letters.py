"""List, show, replay and purge over a `DeadLetterStore`: one set of semantics and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from protoflow import wire
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import DeadLetterNotFoundError, ReplayError, TransportError
from protoflow.transport.dead_letters import DeadLetterRecord, DeadLetterScan, DeadLetterStore
from protoflow.transport.kit.replay import left_behind, may_pass

#: How many records are in memory at once when all are read.
PORTION = 100
#: How many dead letters a ReplayError holds, and how many ids a text.
_MOST_NAMED = 1000
_MOST_IN_TEXT = 10


@dataclass_record
class DeadLetterFilter:
    """Which dead letters are meant; all conditions that are given must hold.

    Attributes:
        error_class: the class of the cause, as in `pf_error_class`.
        error_type: the name of the exception.
        handler: the full name of the handler that failed.
        message_type: the full name of the message's type.
        since: dead-lettered at this time or later, in seconds since the epoch.
        until: dead-lettered before this time.
        key: the key of the message; text is encoded as UTF-8.
        group: the group that failed, namespace included.
    """

    error_class: str | None = None
    error_type: str | None = None
    handler: str | None = None
    message_type: str | None = None
    since: float | None = None
    until: float | None = None
    key: str | bytes | None = None
    group: str | None = None

    def matches(self, record: DeadLetterRecord) -> bool:
        """Whether all conditions hold for a record."""
        key = self.key.encode() if isinstance(self.key, str) else self.key
        metadata = record.message.metadata
        return (
            (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (key is None or record.message.key == key)
            and all(
                wanted is None or metadata.get(name) == wanted
                for name, wanted in (
                    (wire.PF_ERROR_CLASS, self.error_class),
                    (wire.PF_ERROR_TYPE, self.error_type),
                    (wire.PF_HANDLER, self.handler),
                    (wire.CE_TYPE, self.message_type),
                    (wire.PF_GROUP, self.group),
                )
            )
        )


class DeadLetterObserver(Protocol):
    """Gets what was counted, replayed and purged, for statistics."""

    def counted(self, topic: str, count: int) -> None:
        """So many dead letters wait."""

    def replayed(self, topic: str, count: int) -> None:
        """So many were replayed."""

    def purged(self, topic: str, count: int) -> None:
        """So many were purged."""


class DeadLetters:
    """Counts, lists, shows, replays and purges dead letters.

    Topics are dead-letter topics, namespace included; ids are message ids.

    Args:
        store: the transport's store.
        topics: the topics that may be used; None is any. Others raise DeadLetterNotFoundError.
        observer: gets what is counted, replayed and purged.
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
        """The topics that may be used, sorted; empty where any may."""
        return tuple(sorted(self._topics or ()))

    async def count(self, topic: str) -> int:
        """Returns how many dead letters wait."""
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
        """Returns the oldest dead letters first, a page at a time.

        Args:
            topic: the dead-letter topic.
            limit: the size of the page.
            after: the position of the last record of the page before.
            filter: leaves out the others.

        Raises:
            ValueError: `after` is no position.
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
        """Returns the oldest dead letter of that id. Raises DeadLetterNotFoundError."""
        self._check(topic)
        async with self._store.scan(topic, ids=(id,)) as scan:
            while records := await scan.take(PORTION):
                for record in records:
                    if record.message.id == id:
                        return record
        raise _not_found(topic, (id,))

    async def replay(
        self,
        topic: str,
        ids: Collection[str] | None = None,
        *,
        to_origin: bool = False,
        filter: DeadLetterFilter | None = None,
    ) -> int:
        """Gives dead letters back to the group that failed, ids kept and attempts reset.

        Dead letters of one key keep their order: if one fails for a reason that may pass, the
        later ones of its key are left as well. Each of the others is tried.

        Args:
            topic: the dead-letter topic.
            ids: which; None is all.
            to_origin: publishes to the original topic instead, where every group gets them.
            filter: leaves out the others.

        Returns:
            How many were replayed.

        Raises:
            DeadLetterNotFoundError: an id is not there; nothing was replayed.
            ReplayError: some are left; it names how many went, which are left, and why.
            TransportError: the broker failed before anything was replayed.
        """
        self._check(topic)
        run = _Replay(topic, to_origin=to_origin)
        try:
            async with self._store.scan(topic, ids=ids) as scan:
                async for records in _selected(scan, topic, ids, filter):
                    if not await run.replay(scan, records):
                        break
        except TransportError as error:
            run.stopped(error)
        finally:
            if run.replayed and self._observer is not None:
                self._observer.replayed(topic, run.replayed)
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
            DeadLetterNotFoundError: an id is not there; nothing was removed.
        """
        self._check(topic)
        purged = 0
        try:
            if ids is None and filter is None:
                purged = await self._store.clear(topic)
            else:
                async with self._store.scan(topic, ids=ids) as scan:
                    async for records in _selected(scan, topic, ids, filter):
                        await scan.remove(records)
                        purged += len(records)
        finally:
            if purged and self._observer is not None:
                self._observer.purged(topic, purged)
        return purged

    def _check(self, topic: str) -> None:
        if self._topics is not None and topic not in self._topics:
            raise DeadLetterNotFoundError(f"{topic}: no handler has dead letters there")


class _Replay:
    """What became of the dead letters of one replay so far."""

    def __init__(self, topic: str, *, to_origin: bool) -> None:
        self.replayed = 0
        self._topic = topic
        self._to_origin = to_origin
        self._left: dict[str, Exception] = {}
        self._more = 0
        self._error: Exception | None = None
        self._failed_in_row = 0
        #: Keys of which an earlier dead letter failed for a reason that may pass.
        self._blocked: set[bytes] = set()

    async def replay(self, scan: DeadLetterScan, records: Sequence[DeadLetterRecord]) -> bool:
        """Replays a portion. False: nothing goes at the moment, so no more should be tried."""
        free: list[DeadLetterRecord] = []
        for record in records:
            if record.message.key in self._blocked:
                self._leave(record, left_behind())
            else:
                free.append(record)
        results = await scan.replay(free, to_origin=self._to_origin)
        for record, error in zip(free, results, strict=True):
            if error is None:
                self.replayed += 1
                self._failed_in_row = 0
            elif not isinstance(error, DeadLetterNotFoundError):  # else somebody removed it
                self._leave(record, error)
                if may_pass(error):
                    self._failed_in_row += 1
                    if record.message.key is not None:
                        self._blocked.add(record.message.key)
        if self._failed_in_row < PORTION:
            return True
        self._error = error
        return False

    def stopped(self, error: TransportError) -> None:
        """The broker failed; what was not read is left."""
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


async def _selected(
    scan: DeadLetterScan,
    topic: str,
    ids: Collection[str] | None,
    filter: DeadLetterFilter | None,
) -> AsyncIterator[Sequence[DeadLetterRecord]]:
    """The records that are meant, in portions. Raises DeadLetterNotFoundError before the
    first if an id is not there."""
    found: list[DeadLetterRecord] = []
    wanted = frozenset(ids or ())
    missing = set(wanted)
    while records := await scan.take(PORTION):
        if ids is not None:
            records = [each for each in records if each.message.id in wanted]
            missing.difference_update(each.message.id for each in records)
        if filter is not None:
            records = [each for each in records if filter.matches(each)]
        if ids is not None:
            found += records
        elif records:
            yield records
    if missing:
        raise _not_found(topic, missing)
    for start in range(0, len(found), PORTION):
        yield found[start : start + PORTION]


def _not_found(topic: str, ids: Collection[str]) -> DeadLetterNotFoundError:
    named = ", ".join(sorted(ids)[:_MOST_IN_TEXT])
    more = f" and {len(ids) - _MOST_IN_TEXT} more" if len(ids) > _MOST_IN_TEXT else ""
    return DeadLetterNotFoundError(f"no dead letter {named}{more} in {topic}")
