"""Messages that were submitted and are not confirmed yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.errors import PublishError
from protoflow.message import Message

Result = PublishError | None


class Batch:
    """The messages of one call, and what came of them."""

    __slots__ = ("future", "left", "results")

    def __init__(self, future: asyncio.Future[Sequence[Result]], size: int) -> None:
        self.future = future
        self.left = size
        self.results: list[Result] = [None] * size

    def done(self, index: int, result: Result) -> None:
        """What came of one message."""
        self.results[index] = result
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self.results)


class Entry:
    """One message on its way."""

    __slots__ = ("batch", "deadline", "index", "message", "returned", "settled")

    def __init__(self, message: Message, batch: Batch, index: int, deadline: float) -> None:
        self.message = message
        self.batch = batch
        self.index = index
        self.deadline = deadline
        self.returned = False
        self.settled = False

    def done(self, result: Result) -> None:
        """What came of it; only the first time counts."""
        if not self.settled:  # the broker may confirm what was given up already
            self.settled = True
            self.batch.done(self.index, result)
