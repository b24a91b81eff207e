"""The dead letters of a service, or of a plain connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from protoflow.clock import Clock
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError
from protoflow.stats.dead_letters import DLQMetrics
from protoflow.transport.dead_letters import DeadLetterScan, DeadLetterStore, KeepsDeadLetters
from protoflow.transport.interface import Transport
from protoflow.transport.kit.dead_letters import DeadLetters

if TYPE_CHECKING:
    from protoflow.journal import Journal


def dead_letters_of(transport: Transport, journal: Journal | None = None) -> DeadLetters:
    """Returns the dead letters of a transport, in any topic; replays and purges are journaled."""
    return DeadLetters(_store_of(transport), observer=_Observer(journal))


def dead_letters_of_service(
    transport: Transport, metrics: DLQMetrics, clock: Clock, journal: Journal | None = None
) -> DeadLetters:
    """Returns the dead letters of a service's handlers only; they enter its statistics."""
    return DeadLetters(
        _store_of(transport), topics=metrics.topics, observer=_Statistics(metrics, clock, journal)
    )


def _store_of(transport: Transport) -> DeadLetterStore:
    """Returns the store of a transport, or one that refuses every call."""
    if transport.capabilities.dead_letters and isinstance(transport, KeepsDeadLetters):
        return transport.dead_letters
    return _NoStore()


class _NoStore:
    """Replaces the store of a transport that has none."""

    async def count(self, topic: str) -> int:
        """Raises CapabilityError."""
        raise _no_store(topic)

    def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AbstractAsyncContextManager[DeadLetterScan]:
        """Raises CapabilityError."""
        raise _no_store(topic)

    async def clear(self, topic: str) -> int:
        """Raises CapabilityError."""
        raise _no_store(topic)


def _no_store(topic: str) -> CapabilityError:
    return CapabilityError(f"{topic}: this transport cannot list its dead letters", code=NOT_SHOWN)


class _Observer:
    """Records replays and purges in the journal, if there is one."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal

    def counted(self, topic: str, count: int) -> None:
        """Receives the number of waiting dead letters."""

    def replayed(self, topic: str, count: int, ids: Sequence[str], to: str) -> None:
        """Records replayed dead letters."""
        if self._journal is not None:
            detail = f"to {to}" if to else ""
            self._journal.record_action("replay", topic, ids=ids, count=count, detail=detail)

    def purged(self, topic: str, count: int, ids: Sequence[str]) -> None:
        """Records purged dead letters."""
        if self._journal is not None:
            self._journal.record_action("purge", topic, ids=ids, count=count)


class _Statistics(_Observer):
    """Also updates the statistics with counts, replays and purges."""

    def __init__(self, metrics: DLQMetrics, clock: Clock, journal: Journal | None) -> None:
        super().__init__(journal)
        self._metrics = metrics
        self._clock = clock

    def counted(self, topic: str, count: int) -> None:
        """Receives the number of waiting dead letters."""
        self._metrics.topic(topic).set_current(count, None, self._clock.now())

    def replayed(self, topic: str, count: int, ids: Sequence[str], to: str) -> None:
        """Records replayed dead letters."""
        super().replayed(topic, count, ids, to)
        self._metrics.topic(topic).replay(count, self._clock.now())

    def purged(self, topic: str, count: int, ids: Sequence[str]) -> None:
        """Records purged dead letters."""
        super().purged(topic, count, ids)
        self._metrics.topic(topic).purge(count, self._clock.now())
