"""`amqp://user:password@host:5672/vhost` and `amqps://`: RabbitMQ 3.10 or newer.

One durable topic exchange, `protoflow` unless set; a topic is a routing key. Each group
has, for each topic, a quorum queue of its own, a queue with a constant time to live for
each rung of the ladder, from which messages come back to that group alone, and a queue for
its dead letters. Messages that are published before any group has a queue are not kept.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQOptions", "create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for RabbitMQ, not yet open. Raises ConfigError for bad options."""
    options = parse_options(RabbitMQOptions, settings.url.query, settings.options, "rabbitmq")
    return RabbitMQTransport(settings, options)
