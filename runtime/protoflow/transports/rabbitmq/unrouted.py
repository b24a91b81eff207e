"""Messages that no queue keeps: an error where they must arrive, else a warning, once."""

from __future__ import annotations

import logging

from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transports.rabbitmq.pending import Entry

_logger = logging.getLogger("protoflow.rabbitmq")

_TOPICS = 4096


class UnroutedTopics:
    """Learns of each topic, from the first message to it, whether anybody keeps it."""

    def __init__(self, required: bool) -> None:
        self._required = required
        self._asked: set[str] = set()

    def asks(self, entry: Entry) -> bool:
        """Whether a message that need not arrive is to be returned if nobody keeps it."""
        if self._required:
            return True
        topic = entry.message.topic
        if topic in self._asked or len(self._asked) >= _TOPICS:
            return False
        self._asked.add(topic)
        entry.probing = True
        return True

    def returned(self, entry: Entry) -> PublishError | None:
        """What came of a message that was returned; None: it need not arrive."""
        message = entry.message
        if self._required or message.mandatory or not entry.probing:
            return _unroutable(message)
        _logger.warning(
            "a topic without consumers lost a message: RabbitMQ stores nothing for later groups; "
            "start the consumers once before, or set require_subscriber to make it an error",
            extra={"topic": message.topic},
        )
        return None


def _unroutable(message: Message) -> PublishError:
    if "/" in message.topic:
        return PublishError(
            f"message {message.id}: queue {message.topic} does not exist; start the "
            "service with topology mode create"
        )
    return PublishError(
        f"nobody consumes topic {message.topic}, so message {message.id} was not kept; "
        "start a consumer of it once, or set require_subscriber to false"
    )
