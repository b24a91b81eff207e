"""The history of a message: entries of the journal and the broker, sorted by time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from protoflow import ids, wire
from protoflow.codecs.printable import printable
from protoflow.dead_letters import DeadLetterRecord
from protoflow.journal import Event, MessageEvent
from protoflow.message import Message
from protoflow.stats.dead_letters import timestamp
from protoflow.transport import FoundMessages, Sighting, SubscriptionSettings

#: Times of journal, broker and id count as equal within this many seconds.
_SAME = 5.0
_RETRY = "waits again"
#: Events that are recorded with the dead-letter topic instead of the topic.
_ELSEWHERE = (Event.DEAD_LETTERED, Event.REPLAYED, Event.PURGED)
#: Events after which a group is finished with a message.
_ENDS = (Event.HANDLED, Event.SKIPPED, Event.DROPPED)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One event in the history of a message.

    Attributes:
        time: seconds since the epoch; 0.0 if unknown.
        event: the kind of event.
        where: a handler, or the place of the message.
        group: the consumer group, if there is one.
        attempt: the number of the run; 0 if there was no run.
        detail: the error, the type or the operator.
        source: journal, broker, or both.
    """

    time: float
    event: str
    where: str
    group: str = ""
    attempt: int = 0
    detail: str = ""
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the row as plain data."""
        values = asdict(self)
        return values | {"time": timestamp(self.time), "attempt": self.attempt or None}


@dataclass(frozen=True, kw_only=True)
class Caused:
    """A message that a handler of this message published."""

    id: str
    time: float
    topic: str
    type: str
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the message as plain data."""
        return asdict(self) | {"time": timestamp(self.time)}


@dataclass(kw_only=True)
class Report:
    """All findings about a message, and their places.

    Attributes:
        id: the message id.
        timeline: the events, the oldest first.
        groups: the state of each group, by topic and group.
        caused: messages that it caused.
        caused_by: the id of the message that caused it.
        searched: the searched places.
        not_searched: the places that were not searched, and why.
        unreachable: whether the broker does not answer.
        topics: the known topics of the message.
        dead_letters: its dead letters, with their topics.
        message: the message, if the broker has it.
    """

    id: str
    timeline: list[Row] = field(default_factory=list)
    groups: dict[tuple[str, str], str] = field(default_factory=dict)
    caused: list[Caused] = field(default_factory=list)
    caused_by: str = ""
    searched: list[str] = field(default_factory=list)
    not_searched: list[str] = field(default_factory=list)
    unreachable: bool = False
    topics: set[str] = field(default_factory=set)
    dead_letters: list[tuple[str, DeadLetterRecord]] = field(default_factory=list)
    message: Message | None = None

    @property
    def known(self) -> bool:
        """Whether anything is known about the message."""
        return bool(self.timeline or self.caused)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as plain data, in the schema of `protoflow why --json`."""
        return {
            "id": self.id,
            "known": self.known,
            "timeline": [row.as_dict() for row in self.timeline],
            "groups": [
                {"topic": topic, "group": group, "state": state}
                for (topic, group), state in self.groups.items()
            ],
            "caused_by": self.caused_by or None,
            "caused": [one.as_dict() for one in self.caused],
            "searched": self.searched,
            "not_searched": self.not_searched,
        }

    def add_events(self, events: Sequence[MessageEvent], caused: Sequence[MessageEvent]) -> None:
        """Adds the events of the journal."""
        self._add(_row_of_event(event) for event in events)
        for event in events:
            if event.event not in _ELSEWHERE:
                self.topics.add(event.topic)
            if event.event in _ENDS:
                # If the broker also reports the state, its data replaces that of the journal.
                state = f"{event.event} at {timestamp(event.time)}, by the journal"
                self.groups[event.topic, event.group] = state
            elif event.event in (Event.RECEIVED, Event.FAILED):
                self.groups.pop((event.topic, event.group), None)
        self.caused_by = self.caused_by or next((one.cause for one in events if one.cause), "")
        self._add_caused(
            Caused(id=one.id, time=one.time, topic=one.topic, type=one.type, source="journal")
            for one in caused
        )

    def add_found(self, found: FoundMessages) -> None:
        """Adds the findings of the broker."""
        self._add(_row_of_sighting(sighting) for sighting in found.sightings)
        for sighting in found.sightings:
            self.message = sighting.message
            self.topics.add(sighting.message.topic)
            self.caused_by = self.caused_by or sighting.message.metadata.get(wire.CAUSATION_ID, "")
        self._add_caused(
            Caused(
                id=one.message.id, time=one.time, topic=one.message.topic,
                type=one.message.metadata.get(wire.CE_TYPE, ""), source="broker",
            )
            for one in found.caused
        )  # fmt: skip
        for state in found.groups:
            self.groups[state.topic, state.group] = state.state
        self.searched += found.searched
        self.not_searched += found.not_searched

    def add_dead_letter(self, topic: str, record: DeadLetterRecord) -> None:
        """Adds a dead letter that waits at the broker."""
        self.dead_letters.append((topic, record))
        self.message = record.message
        named = record.message.metadata.get
        error = f"{named(wire.PF_ERROR_TYPE, '')}: {named(wire.PF_ERROR_MESSAGE, '')}"
        attempt = named(wire.PF_ATTEMPT, "")
        if (published := _published(record)) is not None:
            self._add([published])
        origin, group = named(wire.PF_ORIGINAL_TOPIC, ""), named(wire.PF_GROUP, "")
        self._add([Row(
            time=record.time, event=Event.DEAD_LETTERED, where=topic, group=group,
            attempt=int(attempt) if attempt.isascii() and attempt.isdecimal() else 0,
            detail=error.strip(": "), source="broker",
        )])  # fmt: skip
        self.groups[origin, group] = f"dead letter in {topic}"
        self.topics.add(origin)
        self.caused_by = self.caused_by or named(wire.CAUSATION_ID, "")

    def add_unreachable(self, error: Exception) -> None:
        """Notes that the broker was not searched, or not completely."""
        self.unreachable = True
        self.not_searched.append(f"broker: {error}")

    def add_unknown(self, subscriptions: Iterable[SubscriptionSettings]) -> None:
        """Notes, for each other group of a topic of the message, that its state is unknown."""
        for one in subscriptions:
            if one.topic in self.topics and not one.broadcast:
                self.groups.setdefault((one.topic, one.group), "not known")

    def _add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            for index, known in enumerate(self.timeline):
                if _same(known, row):
                    self.timeline[index] = _joined(known, row)
                    break
            else:
                self.timeline.append(row)
        self.timeline.sort(key=lambda row: row.time or math.inf)

    def _add_caused(self, found: Iterable[Caused]) -> None:
        known = {one.id for one in self.caused}
        self.caused += [one for one in found if one.id not in known]
        self.caused.sort(key=lambda one: one.time)


def _published(record: DeadLetterRecord) -> Row | None:
    """Returns when the message of a dead letter was published. None means unknown, for example
    after a replay, when the broker received the message again."""
    named = record.message.metadata.get
    try:
        time = float(named(wire.PF_ORIGINAL_TIME, ""))
    except ValueError:
        return None
    named_time = ids.time_of(record.message.id)
    if named_time is None or abs(time - named_time) > _SAME:
        return None
    position = f"{named(wire.PF_ORIGINAL_SHARD, '')}/{named(wire.PF_ORIGINAL_POSITION, '')}"
    return Row(
        time=time,
        event=Event.PUBLISHED,
        where=f"{named(wire.PF_ORIGINAL_TOPIC, '')}, {position}",
        detail=printable(named(wire.CE_TYPE, "")),
        source="broker",
    )


def _row_of_event(event: MessageEvent) -> Row:
    details = (event.type, event.error, event.detail)
    return Row(
        time=event.time,
        event=event.event,
        where=event.handler if event.event in _BY_HANDLERS else event.topic,
        group=event.group,
        attempt=event.attempt,
        detail="; ".join(text for text in details if text),
        source="journal",
    )


#: Events for which the handler is more useful than the topic.
_BY_HANDLERS = (Event.RECEIVED, Event.HANDLED, Event.SKIPPED, Event.FAILED, Event.DROPPED)


def _row_of_sighting(sighting: Sighting) -> Row:
    named = sighting.message.metadata.get
    return Row(
        time=sighting.time,
        event=_RETRY if sighting.group else Event.PUBLISHED,
        where=f"{sighting.topic}, {sighting.position}",
        group=sighting.group,
        detail=printable(named(wire.CE_TYPE, "")),
        source="broker",
    )


def _same(known: Row, row: Row) -> bool:
    """Whether journal and broker report the same event."""
    topics = (known.where.partition(",")[0], row.where.partition(",")[0])
    return (
        (known.source != row.source or row.event == Event.PUBLISHED)
        and (known.event, known.group) == (row.event, row.group)
        and (topics[0] == topics[1] or "stream " in "".join(topics))
        and abs(known.time - row.time) <= _SAME
    )


def _joined(known: Row, row: Row) -> Row:
    """Returns one row for both; the broker knows the place."""
    if known.source == row.source:
        return known
    broker, journal = (known, row) if known.source == "broker" else (row, known)
    return replace(
        broker,
        attempt=broker.attempt or journal.attempt,
        detail=broker.detail or journal.detail,
        source="journal, broker",
    )
