"""A PostgreSQL server that runs, and a schema of each test's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from protoflow.config.url import TransportURL

from tests.brokers import url_or_skip
from tests.transports.postgresql.harness import TestSchema


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the server that all tests share."""
    return url_or_skip("postgresql")


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Any]:  # Any: asyncpg has no types
    """A connection of the server's owner."""
    parsed = TransportURL.parse(url)
    host, port = parsed.hosts[0]
    connection = await asyncpg.connect(
        host=host,
        port=port or 5432,
        user=parsed.user or "postgres",
        password=parsed.password.reveal() if parsed.password else None,
        database=parsed.path.removeprefix("/") or "postgres",
    )
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def place(url: str, admin: Any) -> AsyncIterator[TestSchema]:
    """A schema of this test."""
    place = TestSchema(url, f"t{uuid.uuid4().hex[:12]}", admin)
    try:
        yield place
    finally:
        await place.close()
