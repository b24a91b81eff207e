"""Redis Streams, durable as far as the server's append-only file is: `redis://`, `rediss://`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.redis.options import RedisOptions
from protoflow.transports.redis.transport import RedisTransport

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for Redis. Raises ConfigError for bad options."""
    options = parse_options(RedisOptions, settings.url.query, settings.options, "redis")
    return RedisTransport(settings, options)
