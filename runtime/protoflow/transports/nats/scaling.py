"""KEDA's scaler for JetStream: https://keda.sh/docs/latest/scalers/nats-jetstream/."""

from __future__ import annotations

from collections.abc import Iterator

from protoflow.config.options import parse_options
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transport.scaling import ScalerTrigger
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.options import JetStreamOptions

_MONITORING_PORT = 8222


def triggers(
    settings: TransportSettings, subscription: SubscriptionSettings, lag: int
) -> Iterator[ScalerTrigger]:
    """Yields a trigger for each durable of a subscription: one process for each `lag` messages.

    The scaler reads the monitoring page of the first server, in the global account.
    """
    options = parse_options(JetStreamOptions, settings.url.query, settings.options, "jetstream")
    host = next(iter(settings.url.hosts), ("localhost", None))[0]
    names = JetStreamNames(options.prefix, options.shards, settings.sources)
    for durable in names.consumers(subscription.topic, subscription.group):
        yield ScalerTrigger(
            type="nats-jetstream",
            metadata={
                "natsServerMonitoringEndpoint": f"{host}:{_MONITORING_PORT}",
                "account": "$G",
                "stream": names.stream(subscription.topic),
                "consumer": durable,
                "lagThreshold": str(lag),
            },
        )
