"""Messages that were submitted and are not confirmed yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias

from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission

Result = PublishError | None
#: What distinguishes one message from another: its id and its topic.
Key: TypeAlias = tuple[str, str]

_REMEMBERED = 10_000


class Entry:
    """One message on its way.

    Attributes:
        since: when it, or an earlier submission of it, was submitted.
        deadline: when it is given up.
        probing: whether it was sent as mandatory only to learn whether anybody keeps its topic.
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

    @property
    def key(self) -> Key:
        """What distinguishes it from others."""
        return self.message.id, self.message.topic

    def done(self, result: Result) -> None:
        """What came of it; only the first time counts."""
        if not self.settled:  # the broker may confirm what was given up already
            self.settled = True
            self.batch.done(self.index, result)


class GivenUp:
    """What was given up for its time while the broker still had it to confirm.

    The same message is submitted again then. It must not be sent again, or a broker that was
    blocked for an hour has hundreds of copies afterwards.
    """

    def __init__(self) -> None:
        self._unconfirmed: dict[Key, int] = {}
        self._confirmed: OrderedDict[Key, Message] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._unconfirmed or self._confirmed)

    def add(self, entry: Entry, tag: int) -> None:
        """An entry that stays unconfirmed under its tag."""
        self._unconfirmed[entry.key] = tag

    def confirmed(self, entry: Entry) -> None:
        """It was confirmed after all, before it was submitted again."""
        if self._unconfirmed.pop(entry.key, None) is not None:
            self._confirmed[entry.key] = entry.message
            if len(self._confirmed) > _REMEMBERED:
                self._confirmed.popitem(last=False)

    def tag(self, key: Key) -> int | None:
        """The tag under which a message that is submitted again is unconfirmed."""
        return self._unconfirmed.pop(key, None)

    def take_confirmed(self, message: Message) -> bool:
        """Whether a message that is submitted again was confirmed meanwhile."""
        known = self._confirmed.get((message.id, message.topic))
        if known is None or not same(known, message):
            return False
        del self._confirmed[message.id, message.topic]
        return True

    def forget(self) -> None:
        """The channel is gone, and with it what is known of them."""
        self._unconfirmed.clear()


def same(one: Message, other: Message) -> bool:
    """Whether two messages of one id and topic are one message, submitted twice."""
    return one is other or (
        one.payload == other.payload
        and one.key == other.key
        and one.metadata == other.metadata
        and one.delay == other.delay
    )


def oldest(*entries: Iterator[Entry]) -> float | None:
    """Since when the first of each of these waits."""
    return min((entry.since for each in entries if (entry := next(each, None))), default=None)
