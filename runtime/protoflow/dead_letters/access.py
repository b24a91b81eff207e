"""The dead letters of a service, or of a bare connection."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager

from protoflow.clock import Clock
from protoflow.errors import CapabilityError
from protoflow.stats.dead_letters import DLQMetrics
from protoflow.transport.dead_letters import DeadLetterScan, DeadLetterStore, KeepsDeadLetters
from protoflow.transport.interface import Transport
from protoflow.transport.kit.dead_letters import DeadLetters


def dead_letters_of(transport: Transport) -> DeadLetters:
    """The dead letters of a transport, in any topic."""
    return DeadLetters(_store_of(transport))


def dead_letters_of_service(transport: Transport, metrics: DLQMetrics, clock: Clock) -> DeadLetters:
    """The dead letters of a service's handlers, and no others; counted in its statistics."""
    return DeadLetters(
        _store_of(transport), topics=metrics.topics, observer=_Statistics(metrics, clock)
    )


def _store_of(transport: Transport) -> DeadLetterStore:
    """The store of a transport, or one that refuses everything."""
    if transport.capabilities.dead_letters and isinstance(transport, KeepsDeadLetters):
        return transport.dead_letters
    return _NoStore()


class _NoStore:
    """Stands in for the store of a transport that has none."""

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
    return CapabilityError(f"{topic}: this transport cannot list its dead letters")


class _Statistics:
    """Enters what is counted, replayed and purged."""

    def __init__(self, metrics: DLQMetrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock

    def counted(self, topic: str, count: int) -> None:
        """So many dead letters wait."""
        self._metrics.topic(topic).set_current(count, None, self._clock.now())

    def replayed(self, topic: str, count: int) -> None:
        """So many were replayed."""
        self._metrics.topic(topic).replay(count, self._clock.now())

    def purged(self, topic: str, count: int) -> None:
        """So many were purged."""
        self._metrics.topic(topic).purge(count, self._clock.now())
