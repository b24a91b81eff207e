"""What is lent to whom, and who sees what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protoflow.message import Delivery, Message, Settlement
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.group import Entry, Group


class Witness(Protocol):
    """Sees what becomes durable, and judges it."""

    def stored(self, message: Message, sequence: int) -> None:
        """A message was published."""

    def deferred(self, group: Group, message: Message) -> None:
        """A retry of a message waits in a place of the group's own."""

    def handed_out(self, group: Group, message: Message, holder: Holder) -> None:
        """A message was lent to a process."""

    def settled(self, group: Group, settlement: Settlement, message: Message) -> None:
        """A delivery was settled."""

    def committed(self, group: Group, message: Message) -> None:
        """The offset of a message was committed."""

    def disturbed(self, group: Group) -> None:
        """Something happened that may repeat runs."""

    def taken_away(self, group: Group, message: Message) -> None:
        """A message goes to others though its holder did not settle it."""


class Holder(Protocol):
    """A subscription of a process, as the broker knows it."""

    name: str
    settings: SubscriptionSettings
    group: Group
    #: When it was heard of last.
    seen: float
    lease: float

    gone: bool

    @property
    def dead(self) -> bool:
        """Whether its process is dead."""
        ...

    def wake(self) -> None:
        """There may be something to claim."""


@dataclass(frozen=True, slots=True)
class EndedLease:
    """A lease that ended unsettled and not renewed.

    Attributes:
        time: when it ended at the broker.
        lease: how long it lasts after each renewal, in seconds.
        by_clock: whether its holder knows the end by its own clock.
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
