"""Recognises the driver of a connection by its classes; no driver is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from protoflow.database.interface import DatabaseConnection, SyncDatabaseConnection
from protoflow.database.postgresql import (
    AsyncpgConnection,
    PsycopgConnection,
    SyncPsycopgConnection,
)
from protoflow.database.sqlalchemy import SQLAlchemyConnection, session_connection
from protoflow.database.sqlite import AiosqliteConnection, SQLiteConnection, SyncSQLiteConnection
from protoflow.error_codes import DATABASE
from protoflow.errors import ConfigError

_SESSIONS: Final = {"sqlalchemy AsyncSession", "sqlalchemy async_scoped_session"}
_SYNC_SESSIONS: Final = {"sqlalchemy Session", "sqlalchemy scoped_session"}
_ALCHEMY: Final = "sqlalchemy Connection"
_DJANGO: Final = {"django ConnectionProxy", "django BaseDatabaseWrapper"}
_ASYNC: Final[Mapping[str, Callable[[Any], DatabaseConnection]]] = {
    "asyncpg Connection": AsyncpgConnection,
    "asyncpg PoolConnectionProxy": AsyncpgConnection,
    "psycopg AsyncConnection": PsycopgConnection,
    "sqlalchemy AsyncConnection": SQLAlchemyConnection,
    "aiosqlite Connection": AiosqliteConnection,
    "sqlite3 Connection": SQLiteConnection,
}
_SYNC: Final[Mapping[str, Callable[[Any], SyncDatabaseConnection]]] = {
    "psycopg Connection": SyncPsycopgConnection,
    "sqlite3 Connection": SyncSQLiteConnection,
}


async def adapt(connection: object) -> DatabaseConnection:
    """Returns the interface to a connection of asyncpg, psycopg (`AsyncConnection`), SQLAlchemy
    (`AsyncSession`, `AsyncConnection`), aiosqlite or sqlite3.

    Raises:
        ConfigError: the connection is of another kind.
    """
    names = class_names(connection)
    if not _SESSIONS.isdisjoint(names):
        connection = await session_connection(connection)
        names = class_names(connection)
    for name in names:
        if name in _ASYNC:
            return _ASYNC[name](connection)
    raise ConfigError(_problem(connection, names, _ASYNC, _SYNC, "connect_sync"), code=DATABASE)


def adapt_sync(connection: object) -> SyncDatabaseConnection:
    """Returns the interface to a connection for code without an event loop: of psycopg
    (`Connection`), sqlite3, Django or SQLAlchemy (`Session`, `Connection`), the last two with these
    drivers.

    Raises:
        ConfigError: the connection is of another kind.
    """
    connection = _of_driver(connection)
    names = class_names(connection)
    for name in names:
        if name in _SYNC:
            return _SYNC[name](connection)
    raise ConfigError(_problem(connection, names, _SYNC, _ASYNC, "connect"), code=DATABASE)


def _of_driver(connection: Any) -> object:
    """Returns the driver's connection that Django or SQLAlchemy use, or the argument."""
    names = class_names(connection)
    if not _DJANGO.isdisjoint(names):
        connection.ensure_connection()
        return connection.connection
    if not _SYNC_SESSIONS.isdisjoint(names):
        connection = connection.connection()
        names = class_names(connection)
    return connection.connection.driver_connection if _ALCHEMY in names else connection


def class_names(given: object) -> list[str]:
    """Returns the names of an object's classes, each with its package."""
    return [f"{each.__module__.partition('.')[0]} {each.__name__}" for each in type(given).mro()]


def _problem(
    connection: object,
    names: list[str],
    known: Mapping[str, object],
    others: Mapping[str, object],
    way: str,
) -> str:
    what = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if not _SESSIONS.union(_SYNC_SESSIONS, others).isdisjoint(names):
        return f"{what} needs another kind of publisher: publish through protoflow.{way}(...)"
    kinds = ", ".join(dict.fromkeys(name.replace(" ", ".") for name in known))
    if known is _SYNC:
        kinds += ", and connections of Django and SQLAlchemy with these drivers"
    return f"{what} is not a supported connection; supported are {kinds}"
