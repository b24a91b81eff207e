"""Each kind of connection that users have, in one shape: a transaction that ends as asked."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


class RollBack(Exception):
    """Ends a transaction without a commit."""


@dataclass
class User:
    """Somebody with a database.

    Attributes:
        url: where it is: a URL of PostgreSQL, or the path of a SQLite file.
        transaction: a transaction, committed on leaving, rolled back by an exception.
        write: writes a row of the user's own.
    """

    url: str
    transaction: Callable[[], AbstractAsyncContextManager[Any]]
    write: Callable[[Any, str], Any]


@contextlib.asynccontextmanager
async def asyncpg_user(url: str) -> AsyncIterator[User]:
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:

        @contextlib.asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            async with pool.acquire() as connection, connection.transaction():
                yield connection

        yield User(
            url, transaction, lambda c, text: c.execute("INSERT INTO mine VALUES ($1)", text)
        )


@contextlib.asynccontextmanager
async def psycopg_user(url: str) -> AsyncIterator[User]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:

        @contextlib.asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            async with connection.transaction():
                yield connection

        yield User(
            url, transaction, lambda c, text: c.execute("INSERT INTO mine VALUES (%s)", (text,))
        )


def _alchemy(driver: str, session: bool) -> Callable[[str], AbstractAsyncContextManager[User]]:
    @contextlib.asynccontextmanager
    async def user(url: str) -> AsyncIterator[User]:
        path = f"/{url}" if driver.startswith("sqlite") else url.partition("://")[2]
        engine = create_async_engine(f"{driver}://{path}")

        @contextlib.asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            if session:
                async with AsyncSession(engine) as opened, opened.begin():
                    yield opened
            else:
                async with engine.begin() as connection:
                    yield connection

        async def write(connection: Any, text: str) -> None:
            from sqlalchemy import text as sql

            await connection.execute(sql("INSERT INTO mine VALUES (:text)"), {"text": text})

        try:
            yield User(url, transaction, write)
        finally:
            await engine.dispose()

    return user


@contextlib.asynccontextmanager
async def sqlite3_user(path: str) -> AsyncIterator[User]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row

    @contextlib.asynccontextmanager
    async def transaction() -> AsyncIterator[Any]:
        with connection:
            yield connection

    async def write(connection: sqlite3.Connection, text: str) -> None:
        connection.execute("INSERT INTO mine VALUES (?)", (text,))

    try:
        yield User(path, transaction, write)
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def aiosqlite_user(path: str) -> AsyncIterator[User]:
    async with aiosqlite.connect(path) as connection:
        connection.row_factory = aiosqlite.Row

        @contextlib.asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            try:
                yield connection
            except BaseException:
                await connection.rollback()
                raise
            await connection.commit()

        yield User(
            path, transaction, lambda c, text: c.execute("INSERT INTO mine VALUES (?)", (text,))
        )


POSTGRES = {
    "asyncpg": asyncpg_user,
    "psycopg": psycopg_user,
    "sqlalchemy-asyncpg-session": _alchemy("postgresql+asyncpg", True),
    "sqlalchemy-asyncpg-connection": _alchemy("postgresql+asyncpg", False),
    "sqlalchemy-psycopg-session": _alchemy("postgresql+psycopg", True),
}
SQLITE = {
    "sqlite3": sqlite3_user,
    "aiosqlite": aiosqlite_user,
    "sqlalchemy-aiosqlite-session": _alchemy("sqlite+aiosqlite", True),
}


async def prepare(url: str) -> None:
    """Creates the user's own table."""
    await execute(url, "CREATE TABLE mine (text TEXT)")


async def execute(url: str, statements: str) -> None:
    """Runs statements on a connection of its own."""
    if "://" in url:
        connection = await asyncpg.connect(url)
        await connection.execute(statements)
        await connection.close()
    else:
        with contextlib.closing(sqlite3.connect(url)) as file:
            file.executescript(statements)


async def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Asks the database on a connection of its own."""
    if "://" in url:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()
    with contextlib.closing(sqlite3.connect(Path(url))) as file:
        return file.execute(query).fetchall()
