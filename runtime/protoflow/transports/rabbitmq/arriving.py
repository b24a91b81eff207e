"""Converts messages from the broker to deliveries."""

from __future__ import annotations

import logging
import uuid

from protoflow.message import Delivery, Message
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.reading import Handed, Properties
from protoflow.transports.rabbitmq.start_marks import StartMarks

_logger = logging.getLogger("protoflow.rabbitmq")


class Arriving:
    """Makes a delivery from any received message: no content of a message can raise."""

    def __init__(self, context: SubscriptionContext, marks: StartMarks | None) -> None:
        self._topic = context.settings.topic
        self._name = context.settings.name
        self._counts = not context.settings.broadcast
        self._own_places = context.names.own_places
        self._owner = context.names.owner
        self._marks = marks

    def delivery(self, shard: int, handed: Handed, properties: Properties, body: bytes) -> Delivery:
        """Returns the delivery, without its receipt."""
        _, tag, again, exchange = handed
        problem = properties.problem
        try:
            message, size = codec.decode(self._topic, properties, body, self._owner)
        except Exception as error:  # an error in a message affects only this message
            problem = f"it cannot be read: {type(error).__name__}"
            message = Message(id=uuid.uuid4().hex, topic=self._topic, payload=body)
            size = len(body)
        delivery = Delivery(
            message=message,
            deliveries=codec.deliveries(properties, again) if self._counts else 0,
            shard=shard,
            position=tag,
            time=codec.sent_at(properties),
            size=size,
            own_place=exchange in self._own_places,
            unreadable=problem,
        )
        if problem is None and not message.headers.identified:
            delivery.anonymous = True
        if problem is not None:
            _logger.error(
                "a message was not readable", extra={"subscription": self._name, "error": problem}
            )
        if self._marks is not None and self._marks.any:
            delivery.suspect = self._marks.count(delivery) > 0
        return delivery
