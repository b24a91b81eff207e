"""The tables in the database: created, checked, and brought to a later version."""

from __future__ import annotations

from protoflow.error_codes import OTHER_VERSION, TOPOLOGY_MISSING
from protoflow.errors import ConnectionFailedError, TopologyError, TransportError
from protoflow.transports.postgresql import schema, transaction_ids
from protoflow.transports.postgresql.database import Connection, Database

_EXISTS = "SELECT to_regclass('{s}.meta') IS NOT NULL"
_VERSION = "SELECT version FROM {s}.meta"
# Only one process creates or changes tables; the lock ends with the transaction.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('protoflow {s}'))"


async def check(database: Database, create: bool) -> None:
    """Checks the version of the tables; `create`: creates them if there are none.

    Raises:
        ConnectionFailedError: there are none, or of another version.
    """
    where = f"{database.settings.url.safe}: schema {database.schema}"
    try:
        version = await _version(database)
        if version is None and create:
            await apply(database)
            version = await _version(database)
    except (TransportError, TopologyError) as error:
        raise ConnectionFailedError(f"{where}: {error}") from error
    if version is None:
        raise ConnectionFailedError(
            f"{where} has no tables of Protoflow; run `protoflow topology apply` with a role that "
            "may create them",
            code=TOPOLOGY_MISSING,
        )
    if version != schema.VERSION:
        what = "run `protoflow topology apply`" if version < schema.VERSION else "update Protoflow"
        raise ConnectionFailedError(
            f"{where} has version {version}, and this Protoflow needs {schema.VERSION}; {what}",
            code=OTHER_VERSION,
        )
    await transaction_ids.check_server(database)


async def apply(database: Database) -> None:
    """Creates the tables, or brings them to this version.

    Raises:
        TransportError: the server failed, or refused.
        TopologyError: they are of a later version.
    """
    async with database.transaction() as connection:
        await connection.execute(database.sql(_LOCK))
        version = await _version_in(database, connection)
        if version is None:
            await connection.execute(schema.statements(database.schema))
            return
        if version > schema.VERSION:
            raise TopologyError(
                f"schema {database.schema} has version {version}, and this Protoflow knows "
                f"{schema.VERSION}; update Protoflow",
                code=OTHER_VERSION,
            )
        for step in range(version, schema.VERSION):
            await connection.execute(database.sql(schema.MIGRATIONS[step]))
        if version < schema.VERSION:
            await connection.execute(schema.functions(database.schema))
            await connection.execute(
                database.sql("UPDATE {s}.meta SET version = $1"), schema.VERSION
            )


async def _version(database: Database) -> int | None:
    async with database.transaction() as connection:
        return await _version_in(database, connection)


async def _version_in(database: Database, connection: Connection) -> int | None:
    if not await connection.fetchval(database.sql(_EXISTS)):
        return None
    version: int = await connection.fetchval(database.sql(_VERSION))
    return version
