"""Several messages with one future for their results."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError, TransportError
from protoflow.message import Message
from protoflow.transport.answers import failure_of

#: `Transport.submit`.
Submit: TypeAlias = Callable[[Sequence[Message]], asyncio.Future[Sequence[PublishError | None]]]

#: The result of a message without an answer.
_OPEN: Final = PublishError("not confirmed yet", code=UNCONFIRMED)


class Submission:
    """The results of one call of `Transport.submit`.

    Args:
        size: the number of messages.
        deadline: the time when `expire` gives up messages without a result.

    Attributes:
        future: resolved once every message has a result.
        left: the number of messages without a result.
    """

    __slots__ = ("_results", "deadline", "future", "left")

    def __init__(self, size: int, deadline: float = math.inf) -> None:
        self.future: asyncio.Future[Sequence[PublishError | None]] = (
            asyncio.get_running_loop().create_future()
        )
        self.left = size
        self.deadline = deadline
        self._results: list[PublishError | None] = [_OPEN] * size
        if not size:
            self.future.set_result(self._results)

    def done(self, index: int, result: PublishError | None) -> bool:
        """Sets the result of one message that has none. Returns whether it was set."""
        if self._results[index] is not _OPEN:
            return False
        self._results[index] = result
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self._results)
        return True

    def confirm(self, indexes: Sequence[int]) -> None:
        """Notes that these messages are published, unless they have a result."""
        results = self._results
        left = self.left
        for index in indexes:
            if results[index] is _OPEN:
                results[index] = None
                left -= 1
        self.left = left
        if not left and not self.future.done():
            self.future.set_result(results)

    def finish(self, result: PublishError | None = None) -> None:
        """Sets the result of every message without one."""
        for index in self.open():
            self.done(index, result)

    def expire(self, now: float, error: PublishError) -> bool:
        """Gives up messages without a result after the deadline. Returns whether all are done."""
        if self.left and now >= self.deadline:
            self.finish(error)
        return not self.left

    def is_open(self, index: int) -> bool:
        """Whether a message has no result yet."""
        return self._results[index] is _OPEN

    def open(self) -> Iterable[int]:
        """Returns the indexes of the messages without a result."""
        return [index for index in range(len(self._results)) if self.is_open(index)]


def submit_by_share(
    messages: Sequence[Message], submit_of: Callable[[Message], Submit]
) -> asyncio.Future[Sequence[PublishError | None]]:
    """Submits messages to several transports; `submit_of` selects the one of each message.

    Each transport has its share, in order, when this returns. If one raises, only its share fails.
    """
    shares: dict[Submit, list[int]] = {}
    for index, message in enumerate(messages):
        shares.setdefault(submit_of(message), []).append(index)
    if len(shares) == 1:
        return next(iter(shares))(messages)
    submission = Submission(len(messages))
    for submit, indexes in shares.items():
        _join(submission, indexes, submit([messages[index] for index in indexes]))
    return submission.future


def _join(
    submission: Submission,
    indexes: Sequence[int],
    answer: asyncio.Future[Sequence[PublishError | None]],
) -> None:
    def answered(_: object) -> None:
        failure = failure_of(answer, "publishing", len(indexes))
        results = answer.result() if failure is None else [_not_published(failure)] * len(indexes)
        for index, result in zip(indexes, results, strict=True):
            submission.done(index, result)

    answer.add_done_callback(answered)


def _not_published(failure: TransportError) -> PublishError:
    if isinstance(failure, PublishError):
        return failure
    error = PublishError(str(failure))
    error.__cause__ = failure
    return error
