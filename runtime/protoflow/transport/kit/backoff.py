"""Waits between repeated attempts."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Waits in seconds that double from the first to the longest.

    Args:
        first: the first wait.
        most: the longest wait.
        random: returns a number from 0 up to 1 (`Clock.random`). It shortens each wait by up to
            half, so that many processes do not retry at the same time. None means no jitter.
    """

    __slots__ = ("_first", "_most", "_next", "_random")

    def __init__(
        self, first: float, most: float, random: Callable[[], float] | None = None
    ) -> None:
        self._first = min(first, most)
        self._most = most
        self._random = random
        self._next = self._first

    def next(self) -> float:
        """Returns the wait before the next attempt, and doubles the one after it."""
        wait = self._next
        self._next = min(self._most, wait * 2)
        return wait if self._random is None else wait * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """Starts again with the first wait; call it after a success."""
        self._next = self._first
