"""Messages that wait for confirmation, and the timer that expires them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from protoflow.errors import PublishError

Result: TypeAlias = PublishError | None
#: The result of a message that is neither confirmed nor refused.
_OPEN = PublishError("kafka: not confirmed yet")


class Submission:
    """The results of one `submit`: complete when the last one is there."""

    __slots__ = ("_open", "_results", "deadline", "future")

    def __init__(self, size: int, deadline: float) -> None:
        self.deadline = deadline
        self.future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._results: list[Result] = [_OPEN] * size
        self._open = size
        if not size:
            self.future.set_result(self._results)

    def is_open(self, index: int) -> bool:
        """Whether somebody still waits for this result."""
        return self._results[index] is _OPEN

    def settle(self, index: int, error: Result) -> None:
        """Sets the result of one message; a second one, after the deadline, is ignored."""
        if self._results[index] is not _OPEN:
            return
        self._results[index] = error
        self._open -= 1
        if not self._open and not self.future.done():
            self.future.set_result(self._results)

    def expire(self, error: PublishError) -> None:
        """Gives up on what is still open."""
        for index in range(len(self._results)):
            self.settle(index, error)


class Deadlines:
    """Expires submissions in the order they were made, with one timer for all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[Submission] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def submission(self, size: int) -> Submission:
        """A submission with its deadline."""
        loop = asyncio.get_running_loop()
        submission = Submission(size, loop.time() + self._seconds)
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()
        waiting.append(submission)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep)
        return submission

    @property
    def age(self) -> float:
        """For how long the oldest of what is not confirmed has waited, in seconds."""
        for submission in self._waiting:
            if not submission.future.done():
                now = asyncio.get_running_loop().time()
                return now - (submission.deadline - self._seconds)
        return 0.0

    @property
    def open(self) -> list[Submission]:
        """Everything that is not confirmed yet."""
        return [submission for submission in self._waiting if not submission.future.done()]

    def expire_all(self, detail: str) -> None:
        """Gives up on everything, and stops the timer."""
        for submission in self._waiting:
            submission.expire(PublishError(f"kafka: {detail}"))
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        waiting = self._waiting
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= loop.time()):
            waiting.popleft().expire(
                PublishError(
                    f"kafka: not confirmed within {self._seconds:g} s; it may have been published"
                )
            )
        if waiting:
            self._timer = loop.call_at(waiting[0].deadline, self._sweep)
