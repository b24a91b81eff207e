"""Files in a directory of this machine, shared by its processes: `file:///directory`."""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.file.options import FileOptions
from protoflow.transports.file.transport import FileTransport

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for a directory. Raises ConfigError for bad options."""
    options = parse_options(FileOptions, settings.url.query, settings.options, "file")
    return FileTransport(settings, options)
