"""`amqp://user:password@host:5672/vhost` and `amqps://`: RabbitMQ 3.10 or newer.

There is one durable topic exchange, by default `protoflow`; a topic is a routing key. For each
topic, each group has a quorum queue and a queue for its dead letters. For each rung of the ladder
it has a queue with a constant time to live, from which messages return to this group only. Messages
that are published before any group has a queue are not kept.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQOptions", "create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for RabbitMQ, not yet open. Raises ConfigError for bad options."""
    options = parse_options(RabbitMQOptions, settings.url.query, settings.options, "rabbitmq")
    return RabbitMQTransport(settings, options)
