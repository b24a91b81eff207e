"""The dead letters of the memory transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from protoflow.errors import DeadLetterNotFoundError, NotReplayableError
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, no_group, number_of
from protoflow.transports.memory.broker import Stored
from protoflow.transports.memory.client import BrokerClient


class MemoryDeadLetterStore:
    """Implements `DeadLetterStore`.

    Attributes:
        host: the transport.
        sources: the subscriptions by dead-letter topic.
    """

    def __init__(self, host: BrokerClient) -> None:
        self.host = host
        self.sources = DeadLetterSources()

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        with self.host.broker.lock:
            return len(self.of(topic))

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[MemoryScan]:
        """Begins a scan."""
        first = number_of(after)
        with self.host.broker.lock:
            sequences = [
                sequence
                for sequence, stored in self.of(topic).items()
                if sequence > first and (ids is None or stored.message.id in ids)
            ]
        yield MemoryScan(self, topic, sequences)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters."""
        with self.host.broker.lock:
            found = self.of(topic)
            count = len(found)
            found.clear()
        return count

    def of(self, topic: str) -> dict[int, Stored]:
        """Returns a topic's dead letters by sequence, oldest first; the broker must be locked."""
        found = self.host.broker.topic(topic).dead_letters
        return {} if found is None else found


class MemoryScan:
    """Implements `DeadLetterScan`."""

    def __init__(self, store: MemoryDeadLetterStore, topic: str, sequences: Sequence[int]) -> None:
        self._store = store
        self._topic = topic
        self._sequences = iter(sequences)

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        taken: list[DeadLetterRecord] = []
        with self._store.host.broker.lock:
            found = self._store.of(self._topic)
            while len(taken) < limit and (sequence := next(self._sequences, None)) is not None:
                if sequence in found:
                    taken.append(as_record(found[sequence]))
        return taken

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes and removes records in one step."""
        results: list[Exception | None] = []
        with self._store.host.broker.lock:
            found = self._store.of(self._topic)
            for record in records:
                try:
                    if int(record.position) not in found:
                        raise DeadLetterNotFoundError("it was removed meanwhile")
                    self._publish(record, to_origin=to_origin)
                    del found[int(record.position)]
                    results.append(None)
                except (DeadLetterNotFoundError, NotReplayableError) as error:
                    results.append(error)
        return results

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records."""
        with self._store.host.broker.lock:
            found = self._store.of(self._topic)
            for record in records:
                found.pop(int(record.position), None)

    def _publish(self, record: DeadLetterRecord, *, to_origin: bool) -> None:
        host = self._store.host
        message, name = self._store.sources.replayed(record, to_origin=to_origin)
        now = host.clock.now()
        if to_origin:
            host.broker.publish((message,), host.options, now)
            return
        group = host.broker.topic(message.topic).groups.get(name)
        if group is None:
            raise no_group(message.topic, name)
        host.broker.publish_to(group, message, now)


def as_record(stored: Stored) -> DeadLetterRecord:
    """Returns a stored message as a dead letter."""
    return DeadLetterRecord(message=stored.message, position=str(stored.sequence), time=stored.time)
