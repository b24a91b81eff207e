"""Files in a directory of this machine, shared by its processes: `file:///directory`."""

from __future__ import annotations

import importlib.util

from protoflow.config.options import parse_options
from protoflow.errors import ConfigError
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.file.options import FileOptions

__all__ = ["create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for a directory. Raises ConfigError for bad options, and on Windows."""
    if importlib.util.find_spec("fcntl") is None:
        raise ConfigError(
            "transport: file:// locks with flock, which this system does not have; use sqlite:///"
        )
    from protoflow.transports.file.transport import FileTransport

    options = parse_options(FileOptions, settings.url.query, settings.options, "file")
    return FileTransport(settings, options)
