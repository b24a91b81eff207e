"""`postgresql://host/database`: topics as logs in a database, shared by many processes.

A topic is a log of rows, split into buckets by key. A group without an order is a queue: its
members claim ranges of the log. In a group with an order each bucket belongs to one member, under
a lease. Rows are written once and never updated; they go with their partition.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.error_codes import TRANSPORT_URL
from protoflow.errors import ConfigError
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.postgresql.options import PostgresOptions
from protoflow.transports.postgresql.transport import PostgresTransport

__all__ = ["PostgresOptions", "create"]


def create(settings: TransportSettings) -> Transport:
    """A transport for `postgresql://host:5432/database`."""
    options = parse_options(PostgresOptions, settings.url.query, settings.options, "postgresql")
    if "/" in settings.url.path.removeprefix("/"):
        raise ConfigError(
            "transport: postgresql: the path of the URL must be one database", code=TRANSPORT_URL
        )
    return PostgresTransport(settings, options)
