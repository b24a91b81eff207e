"""Messages that are lent to a process, and the interface that is notified of their fate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protoflow.message import Delivery, Message, Settlement
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.group import Entry, Group


class Witness(Protocol):
    """Is notified of everything that becomes durable, and checks it."""

    def stored(self, message: Message, sequence: int) -> None:
        """Is called after a message was published."""

    def deferred(self, group: Group, message: Message) -> None:
        """Is called after a retry was published to the place where retries of the group wait."""

    def handed_out(self, group: Group, message: Message, holder: Holder) -> None:
        """Is called after a message was lent to a process."""

    def settled(self, group: Group, settlement: Settlement, message: Message) -> None:
        """Is called after a delivery was settled."""

    def committed(self, group: Group, message: Message) -> None:
        """Is called after the offset of a message was committed."""

    def disturbed(self, group: Group) -> None:
        """Is called after an event that may repeat runs."""

    def taken_away(self, group: Group, message: Message) -> None:
        """Is called after a message that its holder did not settle became free for others."""


class Holder(Protocol):
    """A subscription of a process, as the broker sees it."""

    name: str
    settings: SubscriptionSettings
    group: Group
    #: The time of its last request.
    seen: float
    lease: float

    gone: bool

    @property
    def dead(self) -> bool:
        """Returns whether its process is dead."""
        ...

    def wake(self) -> None:
        """Notifies it that there may be messages to claim."""


@dataclass(frozen=True, slots=True)
class EndedLease:
    """A lease that ended because it was neither settled nor renewed.

    Attributes:
        time: when it ended at the broker.
        lease: the length of the lease after each renewal, in seconds.
        by_clock: whether the holder's own clock shows the end to the holder.
    """

    time: float
    lease: float
    by_clock: bool


@dataclass(slots=True, eq=False)
class Hold:
    """A delivery that is lent to a process."""

    entry: Entry
    delivery: Delivery
    holder: Holder
    until: float
