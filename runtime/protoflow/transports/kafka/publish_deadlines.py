"""Deadlines of submissions; one timer fails those that are not confirmed in time."""

from __future__ import annotations

import asyncio
from collections import deque

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError
from protoflow.transport.kit.submission import Submission


class Deadlines:
    """Expires submissions in the order they were made, with one timer for all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[Submission] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def submission(self, size: int) -> Submission:
        """Returns a submission with its deadline."""
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
        """Returns the age of the oldest unconfirmed submission in seconds."""
        for submission in self._waiting:
            if not submission.future.done():
                now = asyncio.get_running_loop().time()
                return now - (submission.deadline - self._seconds)
        return 0.0

    @property
    def open(self) -> list[Submission]:
        """Returns all unconfirmed submissions."""
        return [submission for submission in self._waiting if not submission.future.done()]

    def expire_all(self, detail: str) -> None:
        """Fails all submissions, and stops the timer."""
        for submission in self._waiting:
            submission.finish(PublishError(f"kafka: {detail}"))
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        waiting = self._waiting
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= loop.time()):
            waiting.popleft().finish(
                PublishError(
                    f"kafka: not confirmed within {self._seconds:g} s; it may have been published",
                    code=UNCONFIRMED,
                )
            )
        if waiting:
            self._timer = loop.call_at(waiting[0].deadline, self._sweep)
