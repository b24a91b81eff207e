from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.database.conftest import postgres_database, postgres_url
from tests.inbox.databases import KINDS, Database

__all__ = ["postgres_database", "postgres_url"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A kind of resource, and the place of an empty database for it."""
    name: str = request.param
    if not name.startswith("postgresql"):
        return name, str(tmp_path / "app.db")
    return name, request.getfixturevalue("postgres_url")


@pytest.fixture
async def database(kind: tuple[str, str]) -> AsyncIterator[Database]:
    """Each kind of resource in turn."""
    name, url = kind
    async with KINDS[name](url) as made:
        yield made


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file."""
    async with KINDS["sqlite"](str(tmp_path / "app.db")) as made:
        yield made


@pytest.fixture
async def asyncpg_database(postgres_url: str) -> AsyncIterator[Database]:
    """An asyncpg pool."""
    async with KINDS["postgresql asyncpg"](postgres_url) as made:
        yield made
