"""Core NATS, at most once: `nats://` and `nats+tls://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.nats.core.transport import CoreTransport
from protoflow.transports.nats.options import CoreOptions

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for core NATS. Raises ConfigError for bad options."""
    options = parse_options(CoreOptions, settings.url.query, settings.options, "nats")
    return CoreTransport(settings, options)
