"""Dead letters at the broker: the records, and the interface to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from protoflow.message import Message


@dataclass(slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, and why.

    Attributes:
        message: as it was dead-lettered; its metadata tells cause, origin and attempts.
        position: where it lies, for people.
        time: when it was dead-lettered, in seconds since the epoch.
    """

    message: Message
    position: str = ""
    time: float = 0.0


@runtime_checkable
class DeadLetters(Protocol):
    """Optional: the dead letters of a transport. Topics are dead-letter topics,
    namespace included; ids are message ids."""

    async def count_dead_letters(self, topic: str) -> int:
        """How many letters wait."""
        ...

    async def list_dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest letters first."""
        ...

    async def show_dead_letter(self, topic: str, id: str) -> DeadLetter:
        """One letter. Raises DeadLetterNotFoundError."""
        ...

    async def replay_dead_letters(
        self, topic: str, ids: Collection[str] | None = None, *, to_origin: bool = False
    ) -> int:
        """Gives letters (None: all) back to the group that failed, their ids kept and
        their attempts reset; to the original topic with `to_origin`. How many."""
        ...

    async def purge_dead_letters(self, topic: str, ids: Collection[str] | None = None) -> int:
        """Deletes letters (None: all). How many."""
        ...
