"""A database of a test's own on the shared server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests import brokers


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a running server."""
    url = brokers.url_of("postgresql")
    if url is None:
        pytest.skip("no PostgreSQL server")
    return url


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """A new, empty database."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_server)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{postgres_server.rpartition('/')[0]}/{name}"
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
