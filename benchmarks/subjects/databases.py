"""A database of a run's own on the server that is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def held_transaction(url: str) -> AsyncIterator[None]:
    """A transaction that has written, and is open until leaving."""
    import asyncpg

    connection: Any = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE held (); BEGIN; INSERT INTO held DEFAULT VALUES")
    try:
        yield
    finally:
        await connection.close()


@asynccontextmanager
async def database(url: str, name: str) -> AsyncIterator[str]:
    """The URL of a new database, which is dropped on leaving."""
    import asyncpg

    server: Any = await asyncpg.connect(url)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()
