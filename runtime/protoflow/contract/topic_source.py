"""The existing queue, stream or topic of other programs that stands for a topic of the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Final

from protoflow.dataclass_record import dataclass_record

#: The number of topics that are remembered; names of topics can come from data.
_REMEMBERED: Final = 10_000


@dataclass_record
class TopicSource:
    """Where a topic is consumed from if other programs own the place.

    The runtime declares and changes nothing there. Retries and dead letters are in queues, streams
    or topics of the group's own.

    Attributes:
        name: the queue (RabbitMQ, SQS), topic (Kafka) or stream (JetStream, Redis), as the broker
            knows it.
        consumer: the durable consumer (JetStream), or the consumer group (Kafka, Redis); empty: the
            group of the contract, with the namespace.
        subject: the subject on which messages to the topic are published (JetStream).
        type: the full name of the protobuf type of messages that name no type that the handlers
            know.
        content_type: the content type of messages that name none that can be decoded.
    """

    name: str
    consumer: str = ""
    subject: str = ""
    type: str = ""
    content_type: str = ""

    def over(self, base: TopicSource | None) -> TopicSource:
        """Returns this source; what it does not set is as in another one."""
        if base is None:
            return self
        names = (item.name for item in fields(self))
        return TopicSource(**{name: getattr(self, name) or getattr(base, name) for name in names})

    def __str__(self) -> str:
        return f"{self.name} (consumer {self.consumer})" if self.consumer else self.name


class TopicSources:
    """The sources of the topics on one transport; false if there are none.

    Args:
        find: returns the source of a topic, with the namespace; None: there are no sources.
    """

    def __init__(self, find: Callable[[str], TopicSource | None] | None = None) -> None:
        self._find = find
        self._known: dict[str, TopicSource | None] = {}

    def __bool__(self) -> bool:
        return self._find is not None

    def of(self, topic: str) -> TopicSource | None:
        """Returns the source of a topic with the namespace; None if the topic is our own."""
        if self._find is None:
            return None
        if topic not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[topic] = self._find(topic)
        return self._known[topic]

    def consumer(self, topic: str, group: str) -> str:
        """Returns the consumer or the consumer group with which a group consumes a topic."""
        source = self.of(topic)
        return group if source is None else source.consumer or group

    def place(self, topic: str) -> str:
        """Returns the name of a topic's source at the broker; empty if the topic is our own."""
        source = self.of(topic)
        return "" if source is None else source.name
