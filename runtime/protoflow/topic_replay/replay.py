"""A replay: reads a topic and hands each message to every version of the handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from protoflow.topic_replay.feed import Feed
from protoflow.topic_replay.window import Window
from protoflow.transport.topic_reader import TopicRecord


class Replay:
    """Moves messages from a topic to the feeds.

    Args:
        feeds: one for each version of the handler.
        window: the messages in memory.

    Attributes:
        read: the number of messages that were read.
        all_read: whether no message is left to read.
        position: the position of the last message that was read.
        time: its time.
    """

    def __init__(self, feeds: Sequence[Feed], window: Window) -> None:
        self._feeds = feeds
        self._window = window
        self._stopped = asyncio.Event()
        self._error: BaseException | None = None
        self.read = 0
        self.all_read = False
        self.position = ""
        self.time = 0.0

    def stop(self, error: BaseException | None = None) -> None:
        """Ends the replay: nothing more starts. An error is raised by `run`."""
        self._error = self._error or error
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether the replay ended before the end of the topic."""
        return self._stopped.is_set()

    async def run(
        self, records: AsyncGenerator[TopicRecord, None], number: int | None = None
    ) -> None:
        """Reads at most `number` messages; returns when all are handled, or after `stop`."""
        moving = asyncio.ensure_future(self._move(records, number))
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((moving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (moving, stopping):
                task.cancel()
            await asyncio.wait((moving, stopping))
            for feed in self._feeds:
                feed.end(drop=True)
        if self._error is not None:
            raise self._error
        if not moving.cancelled():
            moving.result()

    async def _move(self, records: AsyncGenerator[TopicRecord, None], number: int | None) -> None:
        async with contextlib.aclosing(records):
            async for record in records:
                for feed in self._feeds:
                    feed.expect(record.message)
                entry = await self._window.add(record)
                self.read += 1
                self.position, self.time = record.position, record.time
                for feed in self._feeds:
                    feed.put(entry)
                if self.read == number:
                    break
        self.all_read = True
        for feed in self._feeds:
            feed.end()
        await self._window.emptied()
