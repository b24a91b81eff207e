"""`directory:///path`: topics and groups as directories, messages as files."""

from __future__ import annotations

from protoflow.transport import Transport, TransportSettings, parse_options

from protoflow_directory.transport import DirectoryOptions, DirectoryTransport

__all__ = ["DirectoryOptions", "DirectoryTransport", "create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for `directory:///path`."""
    url = settings.url
    return DirectoryTransport(
        settings, parse_options(DirectoryOptions, url.query, settings.options, "directory")
    )
