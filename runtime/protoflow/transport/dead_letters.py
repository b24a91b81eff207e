"""Dead letters at the broker: the records, and the store that a transport exposes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from protoflow.transport.topic_reader import TopicRecord


@dataclass(slots=True, kw_only=True)
class DeadLetterRecord(TopicRecord):
    """A message in a dead-letter topic; its metadata holds cause, origin and attempts.

    `DeadLetterStore.scan` continues after its position.

    Attributes:
        destination: for replays: the topic that an operator names instead of the original one, or
            empty.
        reprocess: for replays: whether it is handled again although an inbox has recorded it.
    """

    destination: str = ""
    reprocess: bool = False


class DeadLetterScan(Protocol):
    """One pass over the dead letters of a topic, oldest first.

    It covers the dead letters that exist at its beginning, and no later ones.
    """

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records, at most `limit`; none at the end of the scan. Taking a dead
        letter does not remove it.
        """
        ...

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records of this scan, and removes the confirmed ones.

        Each is published to the group that failed, or with `to_origin` to its original topic. On
        SQL, publishing and removing is one transaction.

        Returns:
            For each record None, or the reason why it is left: a NotReplayableError or a
            PublishRefusedError if repetition cannot help, a DeadLetterNotFoundError if it was
            removed meanwhile, otherwise another TransportError. After the last kind, no later
            record of the
            same key is published.

        Raises:
            TransportError: the broker failed; the records confirmed before are removed.
        """
        ...

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records of this scan."""
        ...


class DeadLetterStore(Protocol):
    """The dead letters of a transport. Topics are dead-letter topics, namespace included.

    A transport exposes it as its attribute `dead_letters`. Operators use it through
    `protoflow.transport.kit.dead_letters.DeadLetters`.
    """

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        ...

    def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AbstractAsyncContextManager[DeadLetterScan]:
        """Begins a scan.

        Args:
            topic: the dead-letter topic.
            after: the position of a record; the scan begins after it, even if the record was
                removed.
            ids: the caller needs the records with these message ids only. A store that can find
                them without reading all may leave out the others.

        Raises:
            ValueError: `after` is not a position.
        """
        ...

    async def clear(self, topic: str) -> int:
        """Removes all waiting dead letters; returns how many."""
        ...


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """Optional: a transport with the capability `dead_letters`."""

    @property
    def dead_letters(self) -> DeadLetterStore:
        """The store; it exists before the transport is opened."""
        ...
