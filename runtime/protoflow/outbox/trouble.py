"""Lanes whose first message was not taken: when it is tried again, and when it is parked."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from protoflow.outbox.store import Pending
from protoflow.transport.kit.backoff import Backoff

#: The longest pause between two attempts, in seconds.
LONGEST_PAUSE: Final = 30.0


@dataclass(slots=True)
class _Trouble:
    """The first message of a lane, which the broker did not take.

    Attributes:
        position: the message.
        retry_at: when it is tried again, by the loop's clock.
        backoff: the waits between attempts.
        attempts: how often it failed while others were taken.
        taken: how many had been taken when it last failed.
    """

    position: int
    retry_at: float
    backoff: Backoff
    attempts: int
    taken: int


class Troubles:
    """The lanes that are left alone for a while.

    Args:
        first_pause: seconds before the first repetition.
        attempts: how often a message may fail, while others are taken.
    """

    def __init__(self, first_pause: float, attempts: int) -> None:
        self._first_pause = first_pause
        self._attempts = attempts
        self._lanes: dict[Hashable, _Trouble] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def waiting(self, now: float) -> list[int]:
        """Returns the positions of messages that are not yet to be tried again."""
        return [each.position for each in self._lanes.values() if each.retry_at > now]

    def failed(self, item: Pending, *, others: bool, taken: int, now: float) -> bool | None:
        """Notes a failure. None: it was the last attempt. Else whether the failure may be the
        broker's: this message never failed while others were taken.

        Args:
            item: the message.
            others: whether other messages were taken in the same submission.
            taken: how many were taken in all.
            now: the loop's time.
        """
        trouble = self._lanes.get(item.lane)
        if trouble is None or trouble.position != item.position:
            backoff = Backoff(self._first_pause, LONGEST_PAUSE)
            trouble = _Trouble(item.position, 0.0, backoff, int(others), taken)
            self._lanes[item.lane] = trouble
        elif taken > trouble.taken:
            trouble.attempts += 1
            trouble.taken = taken
        if trouble.attempts >= self._attempts:
            return None
        trouble.retry_at = now + trouble.backoff.next()
        return not trouble.attempts

    def ended(self, lane: Hashable) -> None:
        """The first message of a lane was taken or parked."""
        self._lanes.pop(lane, None)

    def retry_all(self) -> None:
        """All may be tried again at once: the broker is back."""
        for trouble in self._lanes.values():
            trouble.retry_at = 0.0
            trouble.backoff.reset()
