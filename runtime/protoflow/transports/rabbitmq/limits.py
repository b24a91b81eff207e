"""The limits of the broker."""

from __future__ import annotations

from protoflow.error_codes import NO_DELAY, TOO_LARGE
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transports.rabbitmq.delayed_publishing import MAX_DELAY
from protoflow.transports.rabbitmq.options import RabbitMQOptions

_MEBIBYTE = 1024 * 1024


class Limits:
    """The known limits of the server.

    Attributes:
        max_bytes: the largest payload; 0 is unknown.
    """

    def __init__(self, options: RabbitMQOptions) -> None:
        self.max_bytes = 0
        self._options = options

    def learn(self, version: tuple[int, int]) -> None:
        """Learns the limit of a server that does not report it in another way."""
        default = (16 if version >= (4, 0) else 128) * _MEBIBYTE
        self.max_bytes = self._options.max_message_bytes or default

    def refusal(self, message: Message) -> PublishRefusedError | None:
        """Returns why a message can never be accepted. It raises nothing."""
        if not isinstance(message.payload, bytes | bytearray | memoryview | None):
            kind = type(message.payload).__name__
            return PublishRefusedError(
                f"message {message.id} to {message.topic}: its payload is {kind}, not bytes"
            )
        size = len(message.payload or b"")
        if size > self.max_bytes > 0:
            return PublishRefusedError(
                f"message {message.id} to {message.topic} has {size} bytes, more than the "
                f"{self.max_bytes} that rabbitmq takes; make it smaller, or raise "
                "max_message_size at the server and option max_message_bytes",
                code=TOO_LARGE,
            )
        if message.delay > MAX_DELAY:
            return PublishRefusedError(
                f"message {message.id} to {message.topic} has a delay of {message.delay:.0f} s, "
                f"more than the {MAX_DELAY:.0f} s that rabbitmq can keep",
                code=NO_DELAY,
            )
        return None
