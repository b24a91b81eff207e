"""Each kind of resource that an inbox opens transactions on, in one shape."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import asyncpg
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


@dataclass
class Database:
    """Somebody's database, with the table `effects`.

    Attributes:
        resource: what the inbox is given.
        write: writes an effect on the connection that a handler gets.
        execute: writes a statement on that connection.
        read: the rows of a query, read beside the handlers.
        sync: its handlers run in threads.
    """

    resource: Any
    write: Callable[[Any, str], Any]
    execute: Callable[[Any, str], Any]
    read: Callable[[str], Awaitable[list[Any]]]
    sync: bool = False

    async def effects(self) -> list[str]:
        """All effects, sorted."""
        return sorted(row[0] for row in await self.read("SELECT text FROM effects"))

    async def noted(self) -> int:
        """How many messages are noted."""
        return int((await self.read("SELECT count(*) FROM protoflow_inbox"))[0][0])


_TABLE = "CREATE TABLE effects (text TEXT)"
Kind = Callable[[str], AbstractAsyncContextManager[Database]]


def _reader(url: str) -> Callable[[str], Awaitable[list[Any]]]:
    async def read(query: str) -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return read


@contextlib.asynccontextmanager
async def asyncpg_pool(url: str) -> AsyncIterator[Database]:
    async with asyncpg.create_pool(url, min_size=1, max_size=8) as pool:
        await pool.execute(_TABLE)
        yield Database(
            pool,
            lambda c, text: c.execute("INSERT INTO effects VALUES ($1)", text),
            lambda c, statement: c.execute(statement),
            _reader(url),
        )


@contextlib.asynccontextmanager
async def psycopg_pool(url: str) -> AsyncIterator[Database]:
    await _reader(url)(_TABLE)
    async with AsyncConnectionPool(url, min_size=1, max_size=8, open=False) as pool:
        yield Database(
            pool,
            lambda c, text: c.execute("INSERT INTO effects VALUES (%s)", (text,)),
            lambda c, statement: c.execute(statement),
            _reader(url),
        )


@contextlib.asynccontextmanager
async def sync_psycopg_pool(url: str) -> AsyncIterator[Database]:
    await _reader(url)(_TABLE)
    with ConnectionPool(url, min_size=1, max_size=8, open=False) as pool:
        yield Database(
            pool,
            lambda c, text: c.execute("INSERT INTO effects VALUES (%s)", (text,)),
            lambda c, statement: c.execute(statement),
            _reader(url),
            sync=True,
        )


def _alchemy(driver: str, *, sessions: bool) -> Kind:
    @contextlib.asynccontextmanager
    async def database(url: str) -> AsyncIterator[Database]:
        path = f"/{url}" if "sqlite" in driver else url.partition("://")[2]
        engine = create_async_engine(f"{driver}://{path}")
        async with engine.begin() as connection:
            await connection.execute(sql(_TABLE))
        try:
            yield Database(
                async_sessionmaker(engine) if sessions else engine,
                lambda c, text: c.execute(sql("INSERT INTO effects VALUES (:t)"), {"t": text}),
                lambda c, statement: c.execute(sql(statement)),
                _sqlite_reader(url) if "sqlite" in driver else _reader(url),
            )
        finally:
            await engine.dispose()

    return database


def _sqlite_reader(path: str) -> Callable[[str], Awaitable[list[Any]]]:
    async def read(query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    return read


async def _written(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO effects VALUES (?)", (text,))


async def _executed(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)


@contextlib.asynccontextmanager
async def sqlite_file(path: str) -> AsyncIterator[Database]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(_TABLE)
    yield Database(path, _written, _executed, _sqlite_reader(path))


@contextlib.asynccontextmanager
async def sync_sqlite_file(path: str) -> AsyncIterator[Database]:
    async with sqlite_file(path) as database:
        database.write = lambda c, text: c.execute("INSERT INTO effects VALUES (?)", (text,))
        database.execute = lambda c, statement: c.execute(statement)
        database.sync = True
        yield database


#: By name; those on PostgreSQL begin with `postgresql`.
KINDS: dict[str, Kind] = {
    "postgresql asyncpg": asyncpg_pool,
    "postgresql psycopg": psycopg_pool,
    "postgresql psycopg in threads": sync_psycopg_pool,
    "postgresql session": _alchemy("postgresql+asyncpg", sessions=True),
    "postgresql engine": _alchemy("postgresql+psycopg", sessions=False),
    "sqlite session": _alchemy("sqlite+aiosqlite", sessions=True),
    "sqlite": sqlite_file,
    "sqlite in threads": sync_sqlite_file,
}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Waits for a condition. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)
