"""NATS JetStream: `jetstream://` and `jetstream+tls://`; the work is done in `nats.js_*`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.nats.jetstream.transport import JetStreamTransport
from protoflow.transports.nats.options import JetStreamOptions

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for `jetstream://` or `jetstream+tls://`: durable, at least once."""
    options = parse_options(JetStreamOptions, settings.url.query, settings.options, "jetstream")
    return JetStreamTransport(settings, options)
