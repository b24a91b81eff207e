"""Every kind of connection runs statements in the transaction that its user opened."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import asyncpg
import psycopg
import pytest
from protoflow.database import TransactionWatch, adapt, adapt_sync
from protoflow.errors import ConfigError
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tests.database import users

KINDS = [*users.POSTGRES, *users.SQLITE]


@pytest.fixture
async def url(kind: str, postgres_url: str, tmp_path: Path) -> str:
    found = str(tmp_path / "own.db") if kind in users.SQLITE else postgres_url
    await users.prepare(found)
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_statements_share_the_fate_of_the_transaction(kind: str, url: str) -> None:
    async with (users.POSTGRES | users.SQLITE)[kind](url) as user:
        for text, fails in (("kept", False), ("gone", True)):
            with contextlib.suppress(users.RollBack):
                async with user.transaction() as connection:
                    await user.write(connection, f"own {text}")
                    adapted = await adapt(connection)
                    assert not adapted.autocommits
                    returned = await adapted.fetch(
                        "INSERT INTO mine VALUES ($1) RETURNING text", text
                    )
                    assert [tuple(row) for row in returned] == [(text,)]
                    await adapted.execute_many(
                        "INSERT INTO mine VALUES ($1)", [(f"{text} {i}",) for i in range(2)]
                    )
                    assert await adapted.fetch("DELETE FROM mine WHERE text = 'x'") in ([], ())
                    twice = await adapted.fetch(
                        "SELECT text FROM mine WHERE text = $1 OR text LIKE '%' || $2 AND $1 = ''"
                        " ORDER BY text",
                        text, "e",
                    )  # fmt: skip
                    assert [tuple(row) for row in twice] == [(text,)]
                    assert adapted.in_transaction
                    if fails:
                        raise users.RollBack
            assert not adapted.in_transaction
    found = await users.rows(url, "SELECT text FROM mine ORDER BY text")
    assert found == [("kept",), ("kept 0",), ("kept 1",), ("own kept",)]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_a_transaction_is_noticed(kind: str, url: str) -> None:
    watch, ended = TransactionWatch(), asyncio.Event()
    async with (users.POSTGRES | users.SQLITE)[kind](url) as user:
        async with user.transaction() as connection:
            adapted = await adapt(connection)
            await adapted.fetch("INSERT INTO mine VALUES ('x')")
            watch.add(adapted, ended.set)
            await asyncio.sleep(0.05)
            assert not ended.is_set()
        async with asyncio.timeout(5):
            await ended.wait()
    watch.close()


async def test_connections_that_commit_each_statement_are_known(
    postgres_url: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert (await adapt(connection)).autocommits
    await connection.close()
    assert (await adapt(connection)).autocommits
    with psycopg.connect(postgres_url, autocommit=True) as sync:
        assert adapt_sync(sync).autocommits
        with sync.transaction():
            assert not adapt_sync(sync).autocommits
    with psycopg.connect(postgres_url) as sync:
        assert not adapt_sync(sync).autocommits, "psycopg begins at the first statement"
        assert adapt_sync(sync).fetch("SELECT $1::int, '%'", 1) == [(1, "%")]
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as file:
        assert adapt_sync(file).autocommits
        file.execute("BEGIN")
        assert not adapt_sync(file).autocommits
    engine = create_async_engine(
        postgres_url.replace("postgresql:", "postgresql+asyncpg:"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as alchemy:
        assert (await adapt(alchemy)).autocommits
    await engine.dispose()


async def test_other_objects_are_refused_with_what_is_known(postgres_url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"builtins.object is not a supported connection; .*asyncpg.Connection"
    ):
        await adapt(object())
    with psycopg.connect(postgres_url) as sync, pytest.raises(ConfigError, match="connect_sync"):
        await adapt(sync)
    connection = await asyncpg.connect(postgres_url)
    with pytest.raises(ConfigError, match=r"protoflow\.connect\(\.\.\.\)"):
        adapt_sync(connection)
    await connection.close()


def test_connections_of_synchronous_libraries_lead_to_their_driver(
    postgres_url: str, tmp_path: Path
) -> None:
    urls = (
        f"sqlite:///{tmp_path}/a.db",
        postgres_url.replace("postgresql:", "postgresql+psycopg:"),
    )
    for url in urls:
        engine = create_engine(url)
        with engine.connect() as connection:
            assert adapt_sync(connection).fetch("SELECT 1") == [(1,)]
        with Session(engine) as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS orders (id INTEGER)"))
            session.execute(text("INSERT INTO orders VALUES (1)"))
            adapted = adapt_sync(session)
            assert (adapted.in_transaction, adapted.autocommits) == (True, False)
            assert adapted.fetch("SELECT id FROM orders") == [(1,)], "in the same transaction"
            session.rollback()
        scoped = scoped_session(sessionmaker(engine))
        assert adapt_sync(scoped).fetch("SELECT 1") == [(1,)]
        scoped.remove()
        engine.dispose()


async def test_a_synchronous_session_needs_a_synchronous_publisher() -> None:
    engine = create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(ConfigError, match="connect_sync"):
        await adapt(session)
    engine.dispose()
