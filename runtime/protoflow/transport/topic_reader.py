"""Reading a topic without joining a group: nothing is settled, no group sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from protoflow.contract.spec import Start
from protoflow.message import Message


@dataclass(slots=True, kw_only=True)
class TopicRecord:
    """A message in a topic, as it lies at the broker.

    Attributes:
        message: as it was published.
        position: where it lies, as text.
        time: when the broker got it, in seconds since the epoch; 0.0 if it does not say.
    """

    message: Message
    position: str = ""
    time: float = 0.0


@runtime_checkable
class TopicReader(Protocol):
    """Optional, with the capability `reads_topics`: the messages that a broker keeps in a topic."""

    def read_topic(
        self, topic: str, *, start: Start | float, follow: bool
    ) -> AsyncIterator[TopicRecord]:
        """Yields the messages of a topic, oldest first.

        Args:
            topic: the physical topic.
            start: earliest, latest (what comes from now on), or seconds since the epoch.
            follow: goes on with what comes later; otherwise ends with what is there.

        Raises:
            TopologyError: the topic does not exist.
        """
        ...
