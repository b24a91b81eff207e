"""Reads a topic without joining a group: nothing is settled, and no group is affected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from protoflow.contract.spec import Start
from protoflow.errors import ConfigError
from protoflow.message import Message

#: Where to read: seconds since the epoch, or a text as in `TopicRecord.position`.
Point: TypeAlias = float | str


def number_of(position: str) -> int:
    """Returns the position in a topic with one order. Raises ConfigError."""
    if not (position.isascii() and position.isdigit() and len(position) < 20):
        raise ConfigError(
            f"position {position}: write a number, as `protoflow tail --json` shows it, or an ISO "
            "8601 time"
        )
    return int(position)


def is_within(time: float, start: Start | Point, end: Point | None) -> bool:
    """Whether the time of a message is within the places that are times."""
    late = end is not None and not isinstance(end, str) and time >= end
    return not late and (isinstance(start, str) or time >= start)  # `Start` is text, too


@dataclass(slots=True, kw_only=True)
class TopicRecord:
    """A message in a topic, as stored by the broker.

    Attributes:
        message: the published message.
        position: its position, as text.
        time: the time when the broker received it, in seconds since the epoch; 0.0 if unknown.
    """

    message: Message
    position: str = ""
    time: float = 0.0

    def is_between(self, start: Start | Point, end: Point | None) -> bool:
        """Whether it is at or after a start, and before an end, if positions sort as text."""
        if end is not None and not self._is_before(end):
            return False
        return isinstance(start, Start) or not self._is_before(start)

    def _is_before(self, point: Point) -> bool:
        return self.position < point if isinstance(point, str) else self.time < point


@runtime_checkable
class TopicReader(Protocol):
    """Optional, with the capability `reads_topics`: reads the messages that a broker keeps."""

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """Yields the messages of a topic, oldest first.

        Args:
            topic: the physical topic.
            start: earliest, latest (only new messages), or the place of the first message.
            end: the place before which the reading ends; None: after the existing messages.
            follow: also yields later messages; not with an end.

        Raises:
            TopologyError: the topic does not exist.
            ConfigError: the transport has no such position.
        """
        ...
