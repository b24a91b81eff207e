"""Apache Kafka, with aiokafka: `kafka://a:9092,b:9092` and `kafka+ssl://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.transport import KafkaTransport

__all__ = ["KafkaOptions", "create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a Kafka transport that is not open yet. Raises ConfigError for invalid options."""
    options = parse_options(KafkaOptions, settings.url.query, settings.options, "kafka")
    return KafkaTransport(settings, options)
