"""The topics, groups and dead letters that transports of one name share."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protoflow.clock import Clock
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.spec import Ordering, Start
from protoflow.transport import DeadLetter
from protoflow.transports.memory.group import Entry, Group, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """The options of `memory://`.

    Attributes:
        max_messages: how many unfinished messages are kept, counted once for each group;
            publishing beyond is an error that may pass. Outputs published with a
            settlement are taken all the same.
        max_message_bytes: what is refused beyond, payload, key and metadata together.
        retention: seconds for which a topic without groups keeps its messages.
        retained_messages: how many messages a topic without groups keeps; the oldest go.
    """

    max_messages: int = 1_000_000
    max_message_bytes: int | None = None
    retention: float = 7 * 86400.0
    retained_messages: int = 100_000

    def __post_init__(self) -> None:
        if self.max_messages < 1 or self.retained_messages < 0 or self.retention < 0:
            raise ValueError("max_messages must be above 0, the retentions not below")


@dataclass(slots=True)
class Stored:
    """A message that lies in a topic: as a dead letter, or because no group took it."""

    message: Message
    sequence: int
    time: float
    due: float
    size: int


class Topic:
    """The groups of one topic, and what is kept beside them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.groups: dict[str, Group] = {}
        self.retained: deque[Stored] = deque()
        self.letters: dict[int, Stored] | None = None

    def stored(self) -> list[Stored]:
        """Everything that a new group with start EARLIEST gets, oldest first."""
        kept = {item.sequence: item for item in self.retained}
        kept |= self.letters or {}
        for group in self.groups.values():
            kept |= {
                entry.sequence: Stored(
                    entry.message, entry.sequence, entry.time, entry.due, entry.size
                )
                for entry in group.unfinished()
            }
        return [kept[sequence] for sequence in sorted(kept)]


class Broker:
    """Everything that is published and not finished."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._sequence = 0
        self._ephemeral = 0
        self._timers: dict[Group, tuple[float, asyncio.TimerHandle]] = {}

    def topic(self, name: str) -> Topic:
        """The topic, made if need be."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name)
        return topic

    def make_letters(self, name: str) -> None:
        """The topic is a dead-letter topic from now on; what it retained are letters."""
        topic = self.topic(name)
        if topic.letters is None:
            topic.letters = {item.sequence: item for item in topic.retained}
            topic.retained.clear()

    def join(self, topic: str, name: str, ordering: Ordering, start: Start) -> Group:
        """The group, made if need be; where it then starts is told by `start`."""
        home = self.topic(topic)
        group = home.groups.get(name)
        if group is None:
            stored = home.stored() if start is Start.EARLIEST else ()
            group = Group(topic, name, ordering)
            group.extend(
                Entry(group, item.message, item.sequence, item.time, item.due, item.size)
                for item in stored
            )
            home.groups[name] = group
            home.retained.clear()
        return group

    def join_alone(self, topic: str, name: str, ordering: Ordering) -> Group:
        """A new group of one member, starting with what comes."""
        self._ephemeral += 1
        return self.join(topic, f"{name}#{self._ephemeral}", ordering, Start.LATEST)

    def remove(self, group: Group) -> None:
        """Forgets a group and everything it has still to do."""
        self.topic(group.topic).groups.pop(group.name, None)
        if timer := self._timers.pop(group, None):
            timer[1].cancel()

    def admit(
        self, messages: Sequence[Message], options: MemoryOptions, *, bounded: bool
    ) -> list[PublishError | None]:
        """Why messages are not taken, where they are not. Outputs of what is acknowledged
        are not bounded in number, for else a full broker could not be emptied."""
        limit, kept = options.max_message_bytes, self.kept() if bounded else 0
        if limit is None and kept + len(messages) <= options.max_messages:
            return [None] * len(messages)
        errors: list[PublishError | None] = []
        for message in messages:
            error: PublishError | None = None
            if limit is not None and (size := size_of(message)) > limit:
                error = PublishRefusedError(
                    f"message {message.id} for {message.topic} has {size} bytes, "
                    f"max_message_bytes is {limit}"
                )
            elif bounded and kept >= options.max_messages:
                error = PublishError(
                    f"{kept} messages are unfinished, max_messages is {options.max_messages}"
                )
            else:
                kept += 1
            errors.append(error)
        return errors

    def kept(self) -> int:
        """How many messages are unfinished, counted once for each group."""
        return sum(group.size for topic in self.topics.values() for group in topic.groups.values())

    def publish(self, messages: Iterable[Message], options: MemoryOptions, now: float) -> None:
        """Gives messages to every group of their topics."""
        touched: dict[Group, None] = {}
        for message in messages:
            topic = self.topics.get(message.topic) or self.topic(message.topic)
            due = now + message.delay if message.delay > 0 else 0.0
            if due or message.deduplication_id is not None or message.mandatory:
                message = _delivered(message)
            self._sequence += 1
            sequence, size = self._sequence, size_of(message)
            for group in topic.groups.values():
                group.fresh.append(Entry(group, message, sequence, now, due, size))
                group.size += 1
                touched[group] = None
            if topic.letters is not None:
                topic.letters[sequence] = Stored(message, sequence, now, due, size)
            elif not topic.groups:
                _retain(topic.retained, Stored(message, sequence, now, due, size), options)
        for group in touched:
            group.wake()

    def publish_to(self, group: Group, message: Message, now: float) -> None:
        """Gives a message to one group."""
        self._sequence += 1
        group.extend([Entry(group, message, self._sequence, now, 0.0, size_of(message))])
        group.wake()

    def leave(self, group: Group, member: Member) -> None:
        """Gives back what a member holds and tells the others."""
        group.forsake(member)
        if group.members:
            group.wake()
        elif timer := self._timers.pop(group, None):
            timer[1].cancel()

    def arm(self, group: Group, clock: Clock) -> None:
        """Wakes the group when the first of its waiting messages is due."""
        due = group.next_due
        armed = self._timers.get(group)
        if due is None or (armed is not None and armed[0] <= due):
            return
        if armed is not None:
            armed[1].cancel()
        wait = max(0.0, due - clock.now())
        handle = asyncio.get_running_loop().call_later(wait, self._ring, group)
        self._timers[group] = (due, handle)

    def letters(self, topic: str) -> Sequence[tuple[int, DeadLetter]]:
        """The dead letters of a topic by sequence, oldest first."""
        letters = self.topic(topic).letters or {}
        return [
            (sequence, DeadLetter(message=item.message, position=str(sequence), time=item.time))
            for sequence, item in letters.items()
        ]

    def _ring(self, group: Group) -> None:
        self._timers.pop(group, None)
        group.wake()


def size_of(message: Message) -> int:
    """The bytes of a message as limits count them."""
    metadata = message.metadata
    return (
        len(message.payload or b"")
        + len(message.key or b"")
        + len("".join([*metadata, *metadata.values()]))
    )


def _delivered(message: Message) -> Message:
    """The message without what is for publishing only, lest a republication repeats it."""
    return Message(
        id=message.id,
        topic=message.topic,
        payload=message.payload,
        key=message.key,
        metadata=message.metadata,
        headers=message.headers,
    )


def _retain(retained: deque[Stored], item: Stored, options: MemoryOptions) -> None:
    retained.append(item)
    while len(retained) > options.retained_messages:
        retained.popleft()
    while retained and max(retained[0].time, retained[0].due) < item.time - options.retention:
        retained.popleft()


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Broker]] = (
    weakref.WeakKeyDictionary()
)


def shared(name: str) -> Broker:
    """The broker of that name on the running loop; it lives as long as the loop."""
    brokers = _shared.setdefault(asyncio.get_running_loop(), {})
    return brokers.setdefault(name, Broker())
