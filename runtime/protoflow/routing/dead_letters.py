"""The dead letters of several transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError, NotReplayableError
from protoflow.routing.routes import Routes
from protoflow.transport.dead_letters import (
    DeadLetterRecord,
    DeadLetterScan,
    DeadLetterStore,
    KeepsDeadLetters,
)
from protoflow.transport.interface import Transport


class RoutedDeadLetterStore:
    """A `DeadLetterStore` whose topics are on several transports.

    Args:
        parts: the transports by name.
        routes: selects the transport of a dead-letter topic.
    """

    def __init__(self, parts: Mapping[str, Transport], routes: Routes) -> None:
        self._parts = parts
        self._routes = routes

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        return await self._store(topic).count(topic)

    def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AbstractAsyncContextManager[DeadLetterScan]:
        """Begins a scan."""
        return self._scan(topic, after, ids)

    async def clear(self, topic: str) -> int:
        """Removes all waiting dead letters; returns how many."""
        return await self._store(topic).clear(topic)

    @asynccontextmanager
    async def _scan(
        self, topic: str, after: str, ids: Collection[str] | None
    ) -> AsyncIterator[DeadLetterScan]:
        async with self._store(topic).scan(topic, after=after, ids=ids) as scan:
            yield _RoutedScan(scan, self._routes.of_place(topic), self._routes)

    def _store(self, topic: str) -> DeadLetterStore:
        name = self._routes.of_place(topic)
        part = self._parts[name]
        if part.capabilities.dead_letters and isinstance(part, KeepsDeadLetters):
            return part.dead_letters
        raise CapabilityError(
            f"{topic}: the transport {name} cannot list its dead letters", code=NOT_SHOWN
        )


class _RoutedScan:
    """A scan that replays within its transport only."""

    def __init__(self, scan: DeadLetterScan, transport: str, routes: Routes) -> None:
        self._scan = scan
        self._transport = transport
        self._routes = routes

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        return await self._scan.take(limit)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records."""
        await self._scan.remove(records)

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Replays records. Those whose destination is on another transport are left."""
        elsewhere: dict[int, Exception] = {}
        for index, record in enumerate(records):
            target = self._routes.of_place(record.destination) if record.destination else ""
            if target not in ("", self._transport):
                elsewhere[index] = NotReplayableError(
                    f"{record.destination} is on the transport {target}, and the dead letter on "
                    f"{self._transport}; name a topic on {self._transport}"
                )
        here = [record for index, record in enumerate(records) if index not in elsewhere]
        results = iter(await self._scan.replay(here, to_origin=to_origin) if here else ())
        return [elsewhere.get(index) or next(results) for index in range(len(records))]
