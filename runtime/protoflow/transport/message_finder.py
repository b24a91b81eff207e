"""Finding one message at the broker: where it lies, and how far its groups are with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from protoflow.dataclass_record import dataclass_record
from protoflow.message import Message
from protoflow.transport.settings import SubscriptionSettings


@dataclass_record
class MessageQuery:
    """Which message is looked for, and where.

    Attributes:
        id: the message id.
        topics: topics that it may have been published to, namespace included.
        subscriptions: groups that may have to do with it.
        since: when the search begins, in seconds since the epoch; None: unknown, so that logs
            are not searched.
        within: how many seconds of a topic are searched from then on.
        limit: how many messages are read of a topic at most.
    """

    id: str
    topics: tuple[str, ...] = ()
    subscriptions: tuple[SubscriptionSettings, ...] = ()
    since: float | None = None
    within: float = 3600.0
    limit: int = 100_000


@dataclass(slots=True, kw_only=True)
class Sighting:
    """A message where it lies.

    Attributes:
        message: as it was stored.
        topic: the topic, or what keeps retries of it.
        position: where it lies, for people.
        time: when the broker got it, in seconds since the epoch; 0.0 if it does not say.
        group: the group whose retry it is; empty: it is for every group.
    """

    message: Message
    topic: str
    position: str = ""
    time: float = 0.0
    group: str = ""


@dataclass(slots=True, kw_only=True)
class GroupState:
    """How far a group is with the message: settled, waiting, in flight, or what is known."""

    topic: str
    group: str
    state: str


@dataclass(slots=True, kw_only=True)
class FoundMessages:
    """What a search found.

    Attributes:
        sightings: the message itself.
        caused: messages whose causation id it is.
        groups: how far each group is with it, where the broker knows it.
        searched: the places that were searched to the end.
        not_searched: the places that were not, and why.
    """

    sightings: list[Sighting] = field(default_factory=list)
    caused: list[Sighting] = field(default_factory=list)
    groups: list[GroupState] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    not_searched: list[str] = field(default_factory=list)


@runtime_checkable
class MessageFinder(Protocol):
    """Optional: finds a message without joining a group and without changing anything. Dead
    letters are left to `DeadLetterStore`."""

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """Returns where a message lies. What is missing is named there, and no error."""
        ...


NO_TIME = "the id holds no time; name one with since"
