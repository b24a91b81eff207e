"""KEDA's scaler for RabbitMQ: https://keda.sh/docs/latest/scalers/rabbitmq-queue/."""

from __future__ import annotations

from collections.abc import Iterator

from protoflow.config.options import parse_options
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transport.scaling import ScalerTrigger
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions


def triggers(
    settings: TransportSettings, subscription: SubscriptionSettings, lag: int
) -> Iterator[ScalerTrigger]:
    """Yields a trigger for each queue of a subscription: one process for each `lag` messages.

    The scaler reads the URL from the environment of the service.
    """
    options = parse_options(RabbitMQOptions, settings.url.query, settings.options, "rabbitmq")
    names = Names(options.exchange, options.shards, settings.sources)
    for queue in names.of(subscription.topic, subscription.group).queues:
        yield ScalerTrigger(
            type="rabbitmq",
            metadata={
                "protocol": "amqp",
                "hostFromEnv": "PROTOFLOW_TRANSPORT",
                "queueName": queue,
                "mode": "QueueLength",
                "value": str(lag),
            },
            reads_url=True,
        )
