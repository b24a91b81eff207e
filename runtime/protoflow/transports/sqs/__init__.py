"""Amazon SNS and SQS: a topic per topic, a queue per group: `sqs://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.sqs.options import SqsOptions
from protoflow.transports.sqs.transport import SqsTransport

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for SNS and SQS. Raises ConfigError for bad options."""
    options = parse_options(SqsOptions, settings.url.query, settings.options, "sqs")
    return SqsTransport(settings, options)
