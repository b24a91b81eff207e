"""Messages that no queue keeps: an error if they are mandatory, otherwise one warning."""

from __future__ import annotations

import logging

from protoflow.error_codes import NO_SUBSCRIBER, TOPOLOGY_MISSING
from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transports.rabbitmq.pending import Entry

_logger = logging.getLogger("protoflow.rabbitmq")

_TOPICS = 4096


class UnroutedTopics:
    """Learns from the first message to each topic whether a queue keeps it."""

    def __init__(self, required: bool) -> None:
        self._required = required
        self._asked: set[str] = set()

    def asks(self, entry: Entry) -> bool:
        """Whether an optional message must be returned if no queue keeps it."""
        if self._required:
            return True
        topic = entry.message.topic
        if topic in self._asked or len(self._asked) >= _TOPICS:
            return False
        self._asked.add(topic)
        entry.probing = True
        return True

    def returned(self, entry: Entry) -> PublishError | None:
        """Returns the error of a returned message; None if it is optional."""
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
            "service with topology mode create",
            code=TOPOLOGY_MISSING,
        )
    return PublishError(
        f"no group consumes topic {message.topic}, so message {message.id} was not kept; "
        "start a consumer of it once, or set require_subscriber to false",
        code=NO_SUBSCRIBER,
    )
