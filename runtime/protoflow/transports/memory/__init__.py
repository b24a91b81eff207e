"""`memory://`: topics and groups in the memory of this process.

`memory://` is private to one transport; all transports of `memory://name` in one process share a
broker, on any event loop or thread. The broker lasts as long as the process, so that a restart can
be tested. All operations are immediate and in order, so a run under virtual time is deterministic.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.memory.broker import MemoryOptions
from protoflow.transports.memory.transport import MemoryTransport

__all__ = ["MemoryOptions", "MemoryTransport", "create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for `memory://` or `memory://name`."""
    url = settings.url
    return MemoryTransport(
        settings, parse_options(MemoryOptions, url.query, settings.options, "memory")
    )
