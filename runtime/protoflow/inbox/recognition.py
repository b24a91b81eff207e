"""Recognises the resource of an inbox by its class; no driver is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from protoflow.database.recognition import class_names
from protoflow.error_codes import DATABASE
from protoflow.errors import ConfigError
from protoflow.inbox.postgresql import AsyncpgPool, PsycopgPool, SyncPsycopgPool
from protoflow.inbox.sqlalchemy import Engine, Sessions
from protoflow.inbox.sqlite import SQLiteFile
from protoflow.inbox.transaction import Opener, SyncOpener

_ASYNC: Final[Mapping[str, Callable[[Any], Opener]]] = {
    "asyncpg Pool": AsyncpgPool,
    "psycopg_pool AsyncConnectionPool": PsycopgPool,
    "sqlalchemy AsyncEngine": Engine,
    "sqlalchemy async_sessionmaker": Sessions,
}
_SYNC: Final[Mapping[str, Callable[[Any], SyncOpener]]] = {
    "psycopg_pool ConnectionPool": SyncPsycopgPool,
}
_KINDS: Final = (
    "an asyncpg Pool, a psycopg_pool AsyncConnectionPool or ConnectionPool, a SQLAlchemy "
    "AsyncEngine or async_sessionmaker, or the path of a SQLite file"
)


def openers(resource: object) -> tuple[Opener | None, SyncOpener | None]:
    """Returns the openers of transactions for handlers on the loop, and in threads.

    Raises:
        ConfigError: the resource is of an unknown kind.
    """
    if isinstance(resource, str | os.PathLike):
        path = os.fspath(resource)
        if isinstance(path, str) and "://" not in path and path != ":memory:":
            file = SQLiteFile(path)
            return file, file
        raise ConfigError(
            f"Inbox({path!r}): not the path of a SQLite file; give {_KINDS}", code=DATABASE
        )
    for name in class_names(resource):
        if name in _ASYNC:
            return _ASYNC[name](resource), None
        if name in _SYNC:
            return None, _SYNC[name](resource)
    kind = f"{type(resource).__module__}.{type(resource).__qualname__}"
    raise ConfigError(f"Inbox({kind}): the supported kinds are {_KINDS}", code=DATABASE)
