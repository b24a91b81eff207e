"""The topics, groups and dead letters that transports of one name share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from protoflow.contract.spec import Ordering, Start
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transports.memory.group import Entry, Group

#: The extra size of a dead letter: the reason, the origin, the attempts.
_HEADROOM = 256 * 1024
_NO_MESSAGE = (TypeError, ValueError, AttributeError)
_UNBOUNDED = 1 << 62
_BYTES = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """The options of `memory://`.

    Attributes:
        max_messages: the most unfinished messages, counted once for each group. At the limit,
            publishing fails with a temporary error; outputs of a settlement are still stored.
        max_message_bytes: the largest payload, key and metadata together, in bytes.
        retention: seconds for which a topic without groups keeps its messages.
        retained_messages: the most messages in a topic without groups; the oldest are dropped.
    """

    max_messages: int = 1_000_000
    max_message_bytes: int | None = None
    retention: float = 7 * 86400.0
    retained_messages: int = 100_000

    def __post_init__(self) -> None:
        if self.max_messages < 1 or self.retained_messages < 0 or self.retention < 0:
            raise ValueError("max_messages must be above 0, and the other options at least 0")


@dataclass(slots=True)
class Stored:
    """A message in a topic: a dead letter, or a message that no group has taken."""

    message: Message
    sequence: int
    time: float
    due: float
    size: int


class Topic:
    """The groups of one topic, and the messages kept outside of groups."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.groups: dict[str, Group] = {}
        self.retained: deque[Stored] = deque()
        self.dead_letters: dict[int, Stored] | None = None

    def stored(self) -> list[Stored]:
        """Returns all messages that a new group with start EARLIEST gets, oldest first."""
        kept = {item.sequence: item for item in self.retained}
        kept |= self.dead_letters or {}
        for group in self.groups.values():
            kept |= {
                entry.sequence: Stored(
                    entry.message, entry.sequence, entry.time, entry.due, entry.size
                )
                for entry in group.unfinished()
            }
        return [kept[sequence] for sequence in sorted(kept)]


class Broker:
    """All messages that are published and not finished."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        #: Held during every access: threads of the process share the broker of a name.
        self.lock = threading.RLock()
        self._sequence = 0
        self._ephemeral = 0

    def topic(self, name: str) -> Topic:
        """Returns the topic; creates it if necessary."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name)
        return topic

    def make_dead_letters(self, name: str) -> None:
        """Makes the topic a dead-letter topic; its retained messages become dead letters."""
        topic = self.topic(name)
        if topic.dead_letters is None:
            topic.dead_letters = {item.sequence: item for item in topic.retained}
            topic.retained.clear()

    def join(self, topic: str, name: str, ordering: Ordering, start: Start) -> Group:
        """Returns the group, created if necessary; `start` is the position of a new group."""
        home = self.topic(topic)
        group = home.groups.get(name)
        if group is not None:
            group.remove_gone()
        else:
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
        """Creates a group with one member, which only gets new messages."""
        self._ephemeral += 1
        return self.join(topic, f"{name}#{self._ephemeral}", ordering, Start.LATEST)

    def remove(self, group: Group) -> None:
        """Forgets a group and its unfinished messages."""
        self.topic(group.topic).groups.pop(group.name, None)

    def admit(
        self,
        messages: Sequence[Message],
        options: MemoryOptions,
        sizes: list[int],
        *,
        bounded: bool,
    ) -> list[PublishError | None]:
        """Returns the reasons why messages are refused, and adds the sizes of the others to
        `sizes`. The number of outputs of acknowledged messages is not limited, because otherwise a
        full broker could not be emptied."""
        limit, kept = options.max_message_bytes, self.kept() if bounded else 0
        room = options.max_messages - kept if bounded else _UNBOUNDED
        if limit is None and len(messages) <= room - len(sizes):
            try:
                sizes += [size_of(message) for message in messages]
            except _NO_MESSAGE:
                pass  # they are reported one by one
            else:
                return [None] * len(messages)
        errors: list[PublishError | None] = []
        for message in messages:
            try:
                size = size_of(message)
                if limit is not None and size > limit:
                    self._check_room(message, size, limit)
            except _NO_MESSAGE as error:
                refusal = PublishRefusedError(
                    f"message {message.id!r} for {message.topic!r} cannot be stored: {error}"
                )
                refusal.__cause__ = error
                errors.append(refusal)
                continue
            if len(sizes) < room:
                sizes.append(size)
                errors.append(None)
            else:
                errors.append(
                    PublishError(
                        f"{kept + room} messages are unfinished, max_messages is "
                        f"{options.max_messages}"
                    )
                )
        return errors

    def _check_room(self, message: Message, size: int, limit: int) -> None:
        """Checks the size of dead letters, which have more room for the reason of the failure."""
        topic = self.topics.get(message.topic)
        dead = topic is not None and topic.dead_letters is not None
        if size > limit + (_HEADROOM if dead else 0):
            raise ValueError(f"it has {size} bytes, max_message_bytes is {limit}")

    def kept(self) -> int:
        """The number of unfinished messages, counted once for each group."""
        return sum(group.size for topic in self.topics.values() for group in topic.groups.values())

    def publish(
        self,
        messages: Sequence[Message],
        options: MemoryOptions,
        now: float,
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Gives messages to every group of their topics; `admit` has found the `sizes`."""
        touched: dict[Group, None] = {}
        for message, size in zip(messages, sizes or map(size_of, messages), strict=True):
            topic = self.topics.get(message.topic) or self.topic(message.topic)
            due = now + message.delay if message.delay > 0 else 0.0
            if due or message.deduplication_id is not None or message.mandatory:
                message = _delivered(message)
            self._sequence += 1
            sequence = self._sequence
            for group in topic.groups.values():
                group.fresh.append(Entry(group, message, sequence, now, due, size))
                group.size += 1
                touched[group] = None
            if topic.dead_letters is not None:
                topic.dead_letters[sequence] = Stored(message, sequence, now, due, size)
            elif not topic.groups:
                _retain(topic.retained, Stored(message, sequence, now, due, size), options)
        for group in touched:
            group.wake()

    def publish_to(self, group: Group, message: Message, now: float) -> None:
        """Gives a dead letter back to its group."""
        self._sequence += 1
        entry = Entry(group, message, self._sequence, now, 0.0, size_of(message))
        entry.replayed = True
        group.extend([entry])
        group.wake()


def size_of(message: Message) -> int:
    """Returns the bytes of a message as limits count them. Raises TypeError, ValueError or
    AttributeError for a message that a broker could not store."""
    metadata, payload, key = message.metadata, message.payload, message.key
    size = len("".join([*metadata, *metadata.values()]))
    if payload is not None:
        if payload.__class__ is not bytes and not isinstance(payload, _BYTES):
            raise TypeError(f"its payload is {type(payload).__name__}, not bytes")
        size += len(payload)
    if key is not None:
        if key.__class__ is not bytes and not isinstance(key, _BYTES):
            raise TypeError(f"its key is {type(key).__name__}, not bytes")
        size += len(key)
    return size


def _delivered(message: Message) -> Message:
    """Returns the message without fields for publishing only, so that they are not repeated."""
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


_shared: dict[str, Broker] = {}
_sharing = threading.Lock()


def shared(name: str) -> Broker:
    """Returns this process's broker of that name, for any event loop or thread."""
    with _sharing:
        return _shared.setdefault(name, Broker())
