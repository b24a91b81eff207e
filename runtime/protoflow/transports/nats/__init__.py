"""NATS: `nats://` for core NATS, and the connection that `jetstream://` shares.

Core NATS and JetStream are two transports on one client library. What they share
(`options`, `connection`, `headers`) lives in this package together with both, so that
transports remain strangers to each other; `protoflow.transports.jetstream` is only the
door to the modules named `js_*`.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.nats.core.transport import CoreTransport
from protoflow.transports.nats.options import CoreOptions

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for `nats://` or `nats+tls://`: core NATS, at most once."""
    options = parse_options(CoreOptions, settings.url.query, settings.options, "nats")
    return CoreTransport(settings, options)
