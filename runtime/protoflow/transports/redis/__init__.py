"""Redis Streams, as durable as the server's append-only file: `redis://`, `rediss://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.redis.options import RedisOptions
from protoflow.transports.redis.transport import RedisTransport

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for Redis. Raises ConfigError for invalid options."""
    options = parse_options(RedisOptions, settings.url.query, settings.options, "redis")
    return RedisTransport(settings, options)
