"""A database of a test's own on the shared server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests import brokers

_EMPTY = """DO $$ BEGIN
PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid();
DROP SCHEMA IF EXISTS public, protoflow CASCADE;
CREATE SCHEMA public;
END $$"""


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a new database, for all tests of a process."""
    server = brokers.url_of("postgresql")
    if server is None:
        pytest.skip("broker: postgresql")
    name = f"test_{secrets.token_hex(6)}"
    _execute(server, f"CREATE DATABASE {name}")
    yield f"{server.rpartition('/')[0]}/{name}"
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def postgres_url(postgres_database: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    yield postgres_database
    connection = await asyncpg.connect(postgres_database)
    await connection.execute(_EMPTY)
    await connection.close()
