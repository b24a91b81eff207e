"""Lanes whose first message failed: when it is retried, and when it is parked."""

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
    """The first message of a lane that the broker did not store.

    Attributes:
        position: the position of the message.
        retry_at: the time of the next attempt, by the loop's clock.
        backoff: the waits between attempts.
        attempts: the number of failures while others were stored.
        taken: the number of stored messages at its last failure.
    """

    position: int
    retry_at: float
    backoff: Backoff
    attempts: int
    taken: int


class Troubles:
    """The paused lanes.

    Args:
        first_pause: seconds before the first repetition.
        attempts: the allowed failures of a message while others are stored.
    """

    def __init__(self, first_pause: float, attempts: int) -> None:
        self._first_pause = first_pause
        self._attempts = attempts
        self._lanes: dict[Hashable, _Trouble] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def waiting(self, now: float) -> list[int]:
        """Returns the positions of messages that must still wait for their next attempt."""
        return [each.position for each in self._lanes.values() if each.retry_at > now]

    def failed(self, item: Pending, *, others: bool, taken: int, now: float) -> bool | None:
        """Records a failure. Returns None after the last attempt. Otherwise returns whether the
        broker may be the cause: this message never failed while others were stored.

        Args:
            item: the message.
            others: whether its transport stored other messages in the same submission.
            taken: the number of messages that its transport has stored.
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
        """Forgets a lane, because its first message was stored or parked."""
        self._lanes.pop(lane, None)

    def retry_all(self) -> None:
        """Lets all lanes retry immediately, because the broker is available again."""
        for trouble in self._lanes.values():
            trouble.retry_at = 0.0
            trouble.backoff.reset()
