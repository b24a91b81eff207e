"""The interfaces of outboxes: storing outputs, and publishing them by a relay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from protoflow.message import Message


class OutboxStore(Protocol):
    """Stores outputs."""

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Stores messages, in the transaction of `connection` if given. They are published in the
        order of the calls."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that waits in an outbox.

    Attributes:
        position: its position; later messages have greater positions.
        message: the message.
        flaw: why the message is damaged; a damaged message is parked.
    """

    position: int
    message: Message
    flaw: str | None = None

    @property
    def lane(self) -> tuple[str, bytes] | int:
        """The lane: messages of one lane (topic and key) are published in order."""
        return (self.message.topic, self.message.key) if self.message.key else self.position


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that cannot be published, and the reason."""

    position: int
    message: Message
    reason: str


@runtime_checkable
class RelayedOutbox(OutboxStore, Protocol):
    """An outbox from which the runtime's relay can publish."""

    async def claim(self, relay: object) -> bool:
        """Whether this relay may publish messages of the outbox, or a share of them: no other
        relay publishes these, in this process or another. Asked before each batch."""
        ...

    def holds(self, relay: object) -> bool:
        """Whether what the last `pending` returned may still be published; asked before each
        submission, and answered without asking anybody."""
        ...

    async def release(self, relay: object) -> None:
        """Lets other relays publish."""
        ...

    async def pending(
        self, limit: int, behind: Collection[int] = (), *, again: bool = True
    ) -> Sequence[Pending]:
        """The oldest messages that are not parked, in order; without those at the positions
        `behind`, and without messages that have topic and key of one of these.

        Args:
            limit: how many at most.
            behind: positions of messages that are left alone for now.
            again: messages returned before may still be there, and are wanted again. Otherwise
                all of them were deleted or parked, and need not be looked for.
        """
        ...

    async def delete(self, positions: Collection[int]) -> None:
        """Deletes published messages."""
        ...

    async def park(self, position: int, reason: str) -> None:
        """Parks a message that cannot be published: it is kept, but no longer pending."""
        ...

    async def parked(self, limit: int = 100, *, after: int = 0) -> Sequence[Parked]:
        """The oldest messages behind a position that could not be published."""
        ...

    async def unpark(self, positions: Collection[int]) -> None:
        """These are to be published after all; later ones of their keys may have gone before."""
        ...

    async def backlog(self) -> tuple[int, float]:
        """The number of pending messages, and the time of the oldest in seconds since the epoch."""
        ...
