"""Outboxes in both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from protoflow.outbox import PostgresOutbox, SQLiteOutbox

from tests.database.conftest import postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: the path of a file, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "outbox.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


def outbox_at(url: str) -> SQLiteOutbox | PostgresOutbox:
    return PostgresOutbox(url) if "://" in url else SQLiteOutbox(url)


@pytest.fixture
async def store(url: str) -> AsyncIterator[SQLiteOutbox | PostgresOutbox]:
    store = outbox_at(url)
    yield store
    await store.close()
