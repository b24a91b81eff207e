"""Opens the outbox that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.config.url import TransportURL
from protoflow.contract.topics import TopologyMode
from protoflow.error_codes import TRANSPORT_URL
from protoflow.errors import ConfigError, MissingExtraError
from protoflow.outbox.sqlite import SQLiteOutbox

if TYPE_CHECKING:
    from protoflow.outbox.postgresql import PostgresOutbox


def outbox_at(url: TransportURL, mode: TopologyMode) -> PostgresOutbox | SQLiteOutbox:
    """Returns the outbox of a database, not yet connected.

    Args:
        url: a URL of PostgreSQL or SQLite.
        mode: `create` allows the creation of missing tables.

    Raises:
        ConfigError: the URL names no database.
        MissingExtraError: asyncpg is not installed.
    """
    if url.scheme == "sqlite":
        path = url.path.removeprefix("/")
        if url.hosts or not path:
            raise ConfigError(
                "outbox: sqlite: the URL names no file; write sqlite:///app.db for a file in the "
                "working directory, sqlite:////var/lib/app.db for an absolute path",
                code=TRANSPORT_URL,
            )
        return SQLiteOutbox(path)
    try:
        from protoflow.outbox.postgresql import PostgresOutbox
    except ModuleNotFoundError as error:
        raise MissingExtraError("postgres", "asyncpg") from error
    return PostgresOutbox(url, create=mode is TopologyMode.CREATE)
