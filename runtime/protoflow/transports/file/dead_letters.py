"""Dead letters: the messages of a dead-letter topic that no later record removes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from protoflow.errors import TransportError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, no_group, number_of, replay_to_groups
from protoflow.transports.file.context import FileContext
from protoflow.transports.file.log_reader import LogReader, bases, segment
from protoflow.transports.file.publisher import FilePublisher
from protoflow.transports.file.records import part
from protoflow.transports.file.topics import Topics


@dataclass(slots=True)
class _Waiting:
    """The dead letters of a topic, as far as it was read.

    Attributes:
        reader: reads the topic.
        cursor: the position of the next record to read.
        positions: those of the dead letters, in order; the values are not used.
    """

    reader: LogReader
    cursor: int
    positions: dict[int, None] = field(default_factory=dict)

    def read(self) -> list[int]:
        """Reads on, and returns the positions that wait."""
        if (first := self.reader.first()) > self.cursor:  # another process has removed the rest
            self.cursor = first
            self.positions = {each: None for each in self.positions if each >= first}
        while found := self.reader.read(self.cursor):
            for record in found:
                if not record.is_marker:
                    self.positions[record.position] = None
                    continue
                head = record.head or {}
                before = head.get("removed_before", 0)
                removed = [each for each in self.positions if each < before] if before else ()
                for position in (*head.get("removed", ()), *removed):
                    self.positions.pop(position, None)
            self.cursor = found[-1].end
        return [*self.positions]


class FileDeadLetterStore:
    """Implements `DeadLetterStore`.

    Attributes:
        sources: the subscriptions, with their dead-letter topics.
    """

    def __init__(self, context: FileContext, topics: Topics, publisher: FilePublisher) -> None:
        self.sources = DeadLetterSources()
        self.context = context
        self.topics = topics
        self.publisher = publisher
        self._waiting: dict[str, _Waiting] = {}

    async def count(self, topic: str) -> int:
        """Returns the number of dead letters."""
        return len(await self.waiting(topic))

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[FileScan]:
        """Begins a scan. It reads every dead letter and ignores `ids`."""
        begin = number_of(after) if after else -1
        positions = [each for each in await self.waiting(topic) if each > begin]
        yield FileScan(self, topic, positions)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters, and segments without other messages."""
        if not (positions := await self.waiting(topic)):
            return 0
        await self.remove(topic, {"removed_before": positions[-1] + 1})
        return len(positions)

    async def remove(self, topic: str, marker: dict[str, object]) -> None:
        """Appends a record that removes dead letters."""
        await self.publisher.append(topic, [part(marker)])
        with contextlib.suppress(TransportError):  # tried again by the next removal
            await self.context.consume(self._drop_segments, topic)

    async def waiting(self, topic: str) -> list[int]:
        """Returns the positions of the dead letters."""
        return await self.context.consume(self._read, topic)

    def records(self, topic: str, positions: Sequence[int]) -> list[DeadLetterRecord]:
        """Reads dead letters, in the thread for consuming."""
        reader = self._waiting[topic].reader
        found = [reader.read(position, 1) for position in positions]
        return [each[0].as_topic_record(DeadLetterRecord, topic) for each in found if each]

    def close(self) -> None:
        """Closes the files, in the thread for consuming."""
        for each in self._waiting.values():
            each.reader.close()

    def _read(self, topic: str) -> list[int]:
        if not self.topics.exists(topic):
            return []
        if (known := self._waiting.get(topic)) is None:
            reader = self.topics.reader(topic)
            known = self._waiting[topic] = _Waiting(reader, reader.first())
        return known.read()

    def _drop_segments(self, topic: str) -> None:
        """Removes the first segments, unless dead letters in them wait or a group needs them."""
        path, positions = self.topics.folder(topic), self._read(topic)
        low = min(*positions[:1], self._waiting[topic].cursor, self.topics.needed(topic))
        found = bases(path)
        for base, following in pairwise(found):
            if following > low or following >= self._waiting[topic].cursor:
                break
            os.unlink(segment(path, base))


@dataclass(slots=True)
class FileScan:
    """Implements `DeadLetterScan`.

    Attributes:
        store: the store of the dead letters.
        topic: the dead-letter topic.
        positions: those that were not taken yet.
    """

    store: FileDeadLetterStore
    topic: str
    positions: list[int]

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        taken: list[DeadLetterRecord] = []
        while self.positions and not taken:
            first, self.positions = self.positions[:limit], self.positions[limit:]
            waiting = {*await self.store.waiting(self.topic)}
            still = [each for each in first if each in waiting]
            taken = await self.store.context.consume(self.store.records, self.topic, still)
        return taken

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records, and removes those that are confirmed."""
        submit = self.store.publisher.submit
        return await replay_to_groups(
            records, self.store.sources, self._check_group, submit, self.remove, to_origin=to_origin
        )

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records."""
        if records:
            removed = [int(record.position) for record in records]
            await self.store.remove(self.topic, {"removed": removed})

    async def _check_group(self, message: Message, group: str) -> None:
        topics = self.store.topics
        if not await self.store.context.consume(topics.has_group, message.topic, group):
            raise no_group(message.topic, group)
