"""Finding a message at the broker, and its state in each group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from protoflow import wire
from protoflow.counted import counted
from protoflow.dataclass_record import dataclass_record
from protoflow.message import Message
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transport.topic_reader import TopicRecord


@dataclass_record
class MessageQuery:
    """A search for a message.

    Attributes:
        id: the message id.
        topics: its possible topics, with the namespace.
        subscriptions: the groups that may have received it.
        since: the start of the search, in seconds since the epoch; None if unknown, so that logs
            are not searched.
        within: the number of seconds of a topic to search after this start.
        limit: the highest number of messages to read from a topic.
    """

    id: str
    topics: tuple[str, ...] = ()
    subscriptions: tuple[SubscriptionSettings, ...] = ()
    since: float | None = None
    within: float = 3600.0
    limit: int = 100_000


@dataclass(slots=True, kw_only=True)
class Sighting:
    """A stored message and its place.

    Attributes:
        message: the stored message.
        topic: the topic, or the retry topic.
        position: its position, as text.
        time: the time when the broker received it, in seconds since the epoch; 0.0 if unknown.
        group: the group of a retry; empty for all groups.
    """

    message: Message
    topic: str
    position: str = ""
    time: float = 0.0
    group: str = ""


@dataclass(slots=True, kw_only=True)
class GroupState:
    """The state of the message in a group: settled, waiting, in flight, or a text."""

    topic: str
    group: str
    state: str


@dataclass(slots=True, kw_only=True)
class FoundMessages:
    """The results of a search.

    Attributes:
        sightings: the places of the message itself.
        caused: messages with its id as causation id.
        groups: its state in each group, if the broker knows it.
        searched: the places that were searched completely.
        not_searched: the other places, and the reasons.
    """

    sightings: list[Sighting] = field(default_factory=list)
    caused: list[Sighting] = field(default_factory=list)
    groups: list[GroupState] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    not_searched: list[str] = field(default_factory=list)

    def add(self, record: TopicRecord, place: str, query: MessageQuery, *, group: str = "") -> bool:
        """Adds a record if it is the message or was caused by it.

        Returns:
            Whether it is the message itself. A retry, which names its group, does not count as
            caused.
        """
        message = record.message
        is_caused = not group and message.metadata.get(wire.CAUSATION_ID) == query.id
        if message.id != query.id and not is_caused:
            return False
        sighting = Sighting(
            message=message, topic=place, position=record.position, time=record.time, group=group
        )
        (self.caused if is_caused else self.sightings).append(sighting)
        return not is_caused

    def add_place(self, place: str, count: int, query: MessageQuery) -> None:
        """Adds a place and the number of messages read there, at most one above the limit."""
        if count > query.limit:
            self.not_searched.append(
                f"{place}: after the first {query.limit} messages; raise scan-limit or set since"
            )
        else:
            self.searched.append(f"{place} ({counted(count, 'message')})")


@runtime_checkable
class MessageFinder(Protocol):
    """Optional: finds a message without joining a group and without changing anything. Dead
    letters are left to `DeadLetterStore`."""

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """Returns the places of a message. Topics that do not exist are listed, not raised."""
        ...


NO_TIME = "the id contains no time; set one with since"
