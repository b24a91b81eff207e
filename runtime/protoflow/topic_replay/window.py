"""The messages of a replay that are read and not reported yet: a bounded number, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from protoflow.topic_replay.entries import Entry, Result, Status, size_of
from protoflow.transport.topic_reader import TopicRecord

#: The most bytes of messages and captured outputs in memory; one message may exceed it.
WINDOW_BYTES: Final = 64 * 1024 * 1024


class Window:
    """Keeps messages until all versions have settled them, and reports them in the order of the
    topic.

    Args:
        versions: the number of versions of the handler.
        limit: the most messages.
        report: called with each settled message.
    """

    def __init__(self, versions: int, limit: int, report: Callable[[Entry], None]) -> None:
        self._versions = versions
        self._limit = limit
        self._report = report
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def add(self, record: TopicRecord) -> Entry:
        """Adds a message as soon as there is room."""
        size = size_of(record.message)
        while self._entries and (
            len(self._entries) >= self._limit or self._bytes + size > WINDOW_BYTES
        ):
            await self._change()
        entry = Entry(record, [None] * self._versions, size)
        self._entries.append(entry)
        self._bytes += size
        return entry

    def settle(self, entry: Entry, version: int, result: Result) -> None:
        """Takes the result of a version, and reports what is complete."""
        entry.results[version] = result
        size = sum(map(size_of, result.outputs))
        entry.size += size
        self._bytes += size
        entries = self._entries
        if not entries or entry is not entries[0]:
            return
        while entries and entries[0].is_settled:
            done = entries.popleft()
            self._bytes -= done.size
            self._report(done)
        self._changed.set()

    async def emptied(self) -> None:
        """Waits until every message is reported."""
        while self._entries:
            await self._change()

    def close(self) -> None:
        """Reports the rest after the end of all runs; what was not run has this status."""
        while self._entries:
            entry = self._entries.popleft()
            entry.results = [result or Result(Status.NOT_RUN) for result in entry.results]
            self._report(entry)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
