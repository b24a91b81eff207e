"""NATS JetStream, durable and at least once: `jetstream://` and `jetstream+tls://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.nats.jetstream.transport import JetStreamTransport
from protoflow.transports.nats.options import JetStreamOptions

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for JetStream. Raises ConfigError for bad options."""
    options = parse_options(JetStreamOptions, settings.url.query, settings.options, "jetstream")
    return JetStreamTransport(settings, options)
