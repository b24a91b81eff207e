"""Reads a topic without joining a group: nothing is settled, and no group is affected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from protoflow.contract.spec import Start
from protoflow.message import Message


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


@runtime_checkable
class TopicReader(Protocol):
    """Optional, with the capability `reads_topics`: reads the messages that a broker keeps."""

    def read_topic(
        self, topic: str, *, start: Start | float, follow: bool
    ) -> AsyncIterator[TopicRecord]:
        """Yields the messages of a topic, oldest first.

        Args:
            topic: the physical topic.
            start: earliest, latest (only new messages), or seconds since the epoch.
            follow: also yields later messages; otherwise ends after the existing ones.

        Raises:
            TopologyError: the topic does not exist.
        """
        ...
