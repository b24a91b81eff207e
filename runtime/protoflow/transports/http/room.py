"""The room for requests: a number of messages, and of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Room:
    """Counts messages against limits. A request that is larger than the limits may come alone.

    Args:
        most: the most messages.
        most_bytes: the most bytes of them.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._messages = 0
        self._bytes = 0

    def fits(self, messages: int, size: int) -> bool:
        """Whether messages may come in."""
        return not self._messages or (
            self._messages + messages <= self._most and self._bytes + size <= self._most_bytes
        )

    def add(self, messages: int, size: int) -> None:
        """Adds messages."""
        self._messages += messages
        self._bytes += size

    def remove(self, messages: int, size: int) -> None:
        """Removes messages that were added."""
        self._messages -= messages
        self._bytes -= size


@contextmanager
def reserved(rooms: Sequence[Room], size: int) -> Iterator[None]:
    """Keeps room for a request of this size while its body is read."""
    for room in rooms:
        room.add(1, size)
    try:
        yield
    finally:
        for room in rooms:
            room.remove(1, size)
