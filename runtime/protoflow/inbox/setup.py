"""Creates and verifies the table of an inbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from protoflow.database import DatabaseConnection, Dialect, SyncDatabaseConnection
from protoflow.error_codes import DATABASE, DATABASE_TABLE
from protoflow.errors import ConfigError
from protoflow.inbox.table import COLUMNS, LOCK, Table
from protoflow.inbox.transaction import Opener, SyncOpener
from protoflow.outbox.tables import POSTGRESQL_LOCK, schema

_VERIFY: Final = f"SELECT {COLUMNS} FROM protoflow_inbox LIMIT 0"  # noqa: S608  a constant

_FOUND: Final[Mapping[Dialect, str]] = {
    "postgresql": "SELECT 1 WHERE to_regclass('protoflow_outbox') IS NOT NULL",
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'protoflow_outbox'",
}
_LOCK_OUTBOX: Final[Mapping[Dialect, str]] = {
    "postgresql": POSTGRESQL_LOCK,
    "sqlite": "SELECT 1",
}


async def prepare(opener: Opener, table: Table, *, create: bool, outbox: bool = False) -> None:
    """Creates the table if allowed, and verifies it.

    Args:
        opener: opens the transaction.
        table: the statements.
        create: whether the table may be created.
        outbox: whether outputs of handlers go to the outbox of the same database.

    Raises:
        ConfigError: the table does not exist, or does not have the form of this version.
    """
    transaction = await opener.begin()
    try:
        _refuse_autocommit(transaction.database)
        for statement in _inbox_statements(opener.dialect, table, create=create):
            await transaction.database.fetch(statement)
        if outbox:
            await transaction.database.fetch(_LOCK_OUTBOX[opener.dialect])
            if not await transaction.database.fetch(_FOUND[opener.dialect]):
                for statement in _outbox_statements(opener.dialect, create=create):
                    await transaction.database.fetch(statement)
        await transaction.commit()
    except ConfigError:
        raise
    except Exception as error:
        raise _problem(error) from error
    finally:
        await transaction.close()


def prepare_sync(opener: SyncOpener, table: Table, *, create: bool, outbox: bool = False) -> None:
    """The same in a thread."""
    transaction = opener.begin_sync()
    try:
        _refuse_autocommit(transaction.database)
        for statement in _inbox_statements(opener.dialect, table, create=create):
            transaction.database.fetch(statement)
        if outbox:
            transaction.database.fetch(_LOCK_OUTBOX[opener.dialect])
            if not transaction.database.fetch(_FOUND[opener.dialect]):
                for statement in _outbox_statements(opener.dialect, create=create):
                    transaction.database.fetch(statement)
        transaction.commit()
    except ConfigError:
        raise
    except Exception as error:
        raise _problem(error) from error
    finally:
        transaction.close()


def _inbox_statements(dialect: Dialect, table: Table, *, create: bool) -> list[str]:
    if not create:
        return [_VERIFY]
    lock = [LOCK] if dialect == "postgresql" else []
    return [*lock, *table.schema.split(";\n"), _VERIFY]


def _outbox_statements(dialect: Dialect, *, create: bool) -> list[str]:
    if not create:
        raise ConfigError(
            "handlers with exactly-once effects have outputs, which are written to the outbox in "
            "the inbox's database, but the table protoflow_outbox does not exist; create it with "
            f'protoflow.outbox.schema("{dialect}") in a migration',
            code=DATABASE_TABLE,
        )
    return [each for each in schema(dialect).split(";\n") if each.strip()]


def _refuse_autocommit(database: DatabaseConnection | SyncDatabaseConnection) -> None:
    if database.autocommits:
        raise ConfigError(
            "the engine of the inbox commits each statement separately; leave out "
            'isolation_level="AUTOCOMMIT"',
            code=DATABASE,
        )


def _problem(error: Exception) -> ConfigError:
    return ConfigError(
        f"the table protoflow_inbox cannot be used: {error}; create it once with "
        "protoflow.inbox.POSTGRESQL_SCHEMA or SQLITE_SCHEMA, or let the service do so "
        '(topology = "create")',
        code=DATABASE_TABLE,
    )
