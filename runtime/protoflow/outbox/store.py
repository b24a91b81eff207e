"""The interfaces of outboxes: storing outputs, and publishing them by a relay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from protoflow.message import Message


class OutboxStore(Protocol):
    """Stores outputs in a database."""

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Stores messages, if `connection` is given in its transaction. They are published in the
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
        """Whether this relay may publish messages of the outbox, or a share of them. No other relay
        of any process publishes these. It is called before each batch."""
        ...

    def holds(self, relay: object) -> bool:
        """Whether the messages of the last `pending` may still be published. It is called before
        each submission, and answers without I/O."""
        ...

    async def release(self, relay: object) -> None:
        """Lets other relays publish."""
        ...

    async def pending(
        self, limit: int, behind: Collection[int] = (), *, again: bool = True
    ) -> Sequence[Pending]:
        """Returns the oldest messages that are not parked, in order. Messages at the positions
        `behind`, and all with the same topic and key as one of these, are left out.

        Args:
            limit: the highest number of messages.
            behind: positions of messages that are paused.
            again: whether messages that were returned before are needed again. Otherwise all of
                them were deleted or parked, so the search may start after them.
        """
        ...

    async def delete(self, positions: Collection[int]) -> None:
        """Deletes published messages."""
        ...

    async def park(self, position: int, reason: str) -> None:
        """Parks a message that cannot be published: it is kept, but no longer pending."""
        ...

    async def parked(self, limit: int = 100, *, after: int = 0) -> Sequence[Parked]:
        """Returns the oldest messages after a position that could not be published."""
        ...

    async def unpark(self, positions: Collection[int]) -> None:
        """Makes parked messages pending again; later messages of their keys may be published."""
        ...

    async def backlog(self) -> tuple[int, float]:
        """Returns the number of pending messages, and the time of the oldest in epoch seconds."""
        ...
