"""`memory://`: topics and groups in the memory of this process.

`memory://` is private to one transport; all transports of `memory://name` on one event
loop share a broker, which outlives them, so that a restart can be tried. Everything
happens at once and in order, so a run under virtual time is deterministic. Nothing is
kept beyond the process.
"""

from __future__ import annotations

from protoflow.options import parse_options
from protoflow.transport import Transport, TransportSettings
from protoflow.transports.memory.broker import MemoryOptions
from protoflow.transports.memory.transport import MemoryTransport

__all__ = ["MemoryOptions", "MemoryTransport", "create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for `memory://` or `memory://name`."""
    url = settings.url
    return MemoryTransport(
        settings, parse_options(MemoryOptions, url.query, settings.options, "memory")
    )
