"""Making and verifying the table of an inbox."""

from __future__ import annotations

from typing import Final

from protoflow.database import DatabaseConnection, SyncDatabaseConnection
from protoflow.errors import ConfigError
from protoflow.inbox.table import COLUMNS, LOCK, Table
from protoflow.inbox.transaction import Opener, SyncOpener

_VERIFY: Final = f"SELECT {COLUMNS} FROM protoflow_inbox LIMIT 0"  # noqa: S608  a constant


async def prepare(opener: Opener, table: Table, *, create: bool) -> None:
    """Makes the table if it may, and verifies it.

    Raises:
        ConfigError: it is not there, or not as this version makes it.
    """
    transaction = await opener.begin()
    try:
        _refuse_autocommit(transaction.database)
        if create:
            if opener.dialect == "postgresql":
                await transaction.database.fetch(LOCK)
            for statement in table.schema.split(";\n"):
                await transaction.database.fetch(statement)
        await transaction.database.fetch(_VERIFY)
        await transaction.commit()
    except ConfigError:
        raise
    except Exception as error:
        raise _problem(error) from error
    finally:
        await transaction.close()


def prepare_sync(opener: SyncOpener, table: Table, *, create: bool) -> None:
    """The same in a thread."""
    transaction = opener.begin_sync()
    try:
        _refuse_autocommit(transaction.database)
        if create:
            if opener.dialect == "postgresql":
                transaction.database.fetch(LOCK)
            for statement in table.schema.split(";\n"):
                transaction.database.fetch(statement)
        transaction.database.fetch(_VERIFY)
        transaction.commit()
    except ConfigError:
        raise
    except Exception as error:
        raise _problem(error) from error
    finally:
        transaction.close()


def _refuse_autocommit(database: DatabaseConnection | SyncDatabaseConnection) -> None:
    if database.autocommits:
        raise ConfigError(
            "the inbox was given an engine that commits each statement by itself; leave out "
            'isolation_level="AUTOCOMMIT"'
        )


def _problem(error: Exception) -> ConfigError:
    return ConfigError(
        f"the table protoflow_inbox cannot be used: {error}; create it once with "
        "protoflow.inbox.POSTGRESQL_SCHEMA or SQLITE_SCHEMA, or let the service do so "
        '(topology = "create")'
    )
