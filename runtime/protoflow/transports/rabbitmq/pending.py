"""Messages that were submitted and are not confirmed yet."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission

Result = PublishError | None
#: The identity of a message: its id and its topic.
Key: TypeAlias = tuple[str, str]

_REMEMBERED = 10_000


class Entry:
    """One message in flight.

    Attributes:
        since: the time of its first submission.
        deadline: the time when it is given up.
        probing: whether it was sent as mandatory only to learn whether a queue keeps its topic.
        returned: whether the broker found no queue for it.
        settled: whether it has a result.
    """

    __slots__ = ("batch", "deadline", "index", "message", "probing", "returned", "settled", "since")

    def __init__(
        self, message: Message, batch: Submission, index: int, since: float, deadline: float
    ) -> None:
        self.message = message
        self.batch = batch
        self.index = index
        self.since = since
        self.deadline = deadline
        self.probing = False
        self.returned = False
        self.settled = False

    def __str__(self) -> str:
        return f"message {self.message.id} to {self.message.topic}"

    @property
    def key(self) -> Key:
        """The identity of the message."""
        return self.message.id, self.message.topic

    def done(self, result: Result) -> None:
        """Sets the result; only the first one counts."""
        if not self.settled:  # the broker may confirm a message that was given up
            self.settled = True
            self.batch.done(self.index, result)


class Unconfirmed:
    """The messages that were sent and are not confirmed yet.

    A message that was given up after its time is submitted again. It must not be sent again while
    the broker may still confirm it: a broker that was blocked for an hour would otherwise store
    hundreds of copies.

    Attributes:
        entries: by their tags, in the order in which they were sent.
    """

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._tag = 0
        self._given_up: dict[Key, int] = {}
        self._confirmed: OrderedDict[Key, Message] = OrderedDict()

    def add(self, entry: Entry) -> None:
        """Adds an entry that is sent now."""
        self._tag += 1
        self.entries[self._tag] = entry

    def take(self, tag: int, multiple: bool) -> list[Entry]:
        """Removes the answered entries: one tag, or all up to it."""
        if not multiple:
            return [self.entries.pop(tag)] if tag in self.entries else []
        tags = [*itertools.takewhile(lambda known: known <= tag, self.entries)]
        return [self.entries.pop(known) for known in tags]

    def give_up(self, tag: int, error: PublishError) -> None:
        """Fails an entry whose time is over; it stays unconfirmed."""
        entry = self.entries[tag]
        self._given_up[entry.key] = tag
        entry.done(error)

    def confirm(self, entry: Entry) -> None:
        """Notes a confirmation for a removed entry, possibly after it was given up."""
        if entry.settled and self._given_up.pop(entry.key, None) is not None:
            self._confirmed[entry.key] = entry.message
            if len(self._confirmed) > _REMEMBERED:
                self._confirmed.popitem(last=False)
        entry.done(None)

    def knows(self, entry: Entry) -> bool:
        """Whether the broker already has the message from an earlier submission. Then the entry is
        done, or waits for the same confirmation."""
        if not (self._given_up or self._confirmed):
            return False
        confirmed = self._confirmed.get(entry.key)
        if confirmed is not None and _same(confirmed, entry.message):
            del self._confirmed[entry.key]
            entry.done(None)
            return True
        tag = self._given_up.pop(entry.key, 0)
        earlier = self.entries.get(tag)
        if earlier is None or not _same(earlier.message, entry.message):
            return False
        entry.since, entry.probing = earlier.since, earlier.probing
        self.entries[tag] = entry
        return True

    def clear(self) -> list[Entry]:
        """Forgets all entries, because the channel is lost and the next one starts its tags
        anew."""
        entries, self.entries = [*self.entries.values()], {}
        self._given_up.clear()
        self._tag = 0
        return entries


def _same(one: Message, other: Message) -> bool:
    """Whether two messages with the same id and topic are one message, submitted twice."""
    return one is other or (
        one.payload == other.payload
        and one.key == other.key
        and one.metadata == other.metadata
        and one.delay == other.delay
    )


def oldest(waiting: Iterable[Iterator[Entry]]) -> float | None:
    """Returns the first submission time of the oldest entry."""
    return min((entry.since for each in waiting if (entry := next(each, None))), default=None)
