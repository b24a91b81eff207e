"""The URL, the file and the tables of sqlite."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import (
    ConfigError,
    ConnectionFailedError,
    PublishError,
    TopologyError,
    TransportError,
)
from protoflow.message import Settlement
from protoflow.transport import Topology, TopologyMode
from protoflow.transports.sqlite import location, schema
from protoflow.transports.sqlite.options import SqliteOptions

from tests.transports.harness import Listener, ack, make, messages, opened, settings, take


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


def rows(url: str, query: str) -> list[Any]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


# The URL.


async def test_three_slashes_are_relative_and_four_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened("sqlite:///here.db"):
        assert (tmp_path / "here.db").exists()
    async with opened(f"sqlite:///{tmp_path}/there.db"):
        assert (tmp_path / "there.db").exists()


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_url_without_a_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write sqlite:///queue\.db, or memory://"):
        make(text)


def test_two_slashes_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"write sqlite:///queue\.db"):
        make("sqlite://queue.db")


def test_all_mistakes_of_url_and_options_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make("sqlite://?synchronous=sometimes&busy=1", options={"lease": True})
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(("value", "pragma"), [("off", 0), ("normal", 1), ("full", 2)])
async def test_synchronous_reaches_the_connection(url: str, value: str, pragma: int) -> None:
    async with opened(f"{url}?synchronous={value}") as transport:
        found = await transport.worker.call(
            lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0],
            writes=False,
        )
        assert found == pragma


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="does not exist; create it"):
        await make(f"sqlite:///{tmp_path}/nowhere/queue.db").open()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"something else" * 1000)
    with pytest.raises(ConnectionFailedError, match="not a database") as caught:
        await make(f"sqlite:///{tmp_path}/queue.db").open()
    assert isinstance(caught.value.__cause__, sqlite3.Error)


async def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        async with opened(f"sqlite:///{tmp_path}/queue.db") as transport:
            await transport.submit(messages(1))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("queue.db", "queue.db-wal", "queue.db-shm"), 0o600)


async def test_the_mode_of_a_file_that_exists_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "queue.db"
    path.touch()
    path.chmod(0o666)
    async with opened(f"sqlite:///{path}"):
        assert path.stat().st_mode & 0o777 == 0o666
    assert "chmod o-w" in caplog.text


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "queue.db").symlink_to(tmp_path / "target.db")
    with pytest.raises(
        ConnectionFailedError, match=r"queue\.db is a symbolic link; name its target"
    ):
        await make(f"sqlite:///{tmp_path}/queue.db").open()
    assert not (tmp_path / "target.db").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    async with opened(f"sqlite:///{tmp_path}/linked/queue.db") as transport:
        await transport.submit(messages(1))
    assert (tmp_path / "data" / "queue.db").exists()


async def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="not a regular file"):
        await make(f"sqlite:///{tmp_path}").open()


# The file while it is open.


@pytest.mark.parametrize("how", ["unlinked", "replaced", "log unlinked"])
async def test_a_file_that_is_replaced_confirms_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "queue.db"
    async with opened(f"sqlite:///{path}?lease=300ms") as transport:
        listener = Listener()
        subscription = await transport.subscribe(settings(), listener)
        await transport.submit(messages(1))
        (delivery,) = await take(subscription)
        files = [
            file for file in tmp_path.iterdir() if how != "log unlinked" or "-wal" in file.name
        ]
        for file in files:
            file.rename(tmp_path / f"kept{file.name}")
        if how == "replaced":
            async with opened(f"sqlite:///{path}") as other:
                await other.submit(messages(5, "other"))
        (error,) = await transport.submit(messages(1))
        assert isinstance(error, PublishError)
        assert "queue.db was replaced or deleted" in str(error)
        assert "replaced or deleted" in transport.health()
        with pytest.raises(TransportError, match="replaced"):
            await subscription.settle([Settlement(delivery)])
        with pytest.raises(TransportError, match="replaced"):
            async with transport.transaction():
                raise AssertionError
        if how == "unlinked":
            assert not path.exists(), "it is not made anew"
        for file in files:  # put back
            (tmp_path / f"kept{file.name}").rename(file)
        while transport.health() is not None:
            await asyncio.sleep(0.05)
        await ack(subscription, [delivery])
        assert await transport.submit(messages(1)) == [None]


async def test_an_idle_consumer_notices_that_its_file_is_gone(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/queue.db?poll_interval=50ms") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(subscription.receive(1, 100))
        await asyncio.sleep(0.2)
        for file in list(tmp_path.iterdir()):
            file.unlink()
        async with asyncio.timeout(5):
            while transport.health() is None:
                await asyncio.sleep(0.02)
        receiving.cancel()


async def test_health_is_green_only_when_something_was_written(url: str) -> None:
    async with opened(f"{url}?busy_timeout=50ms") as transport:
        other = sqlite3.connect(transport.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        (error,) = await transport.submit(messages(1))
        assert error is not None
        assert (await transport.lag("t", "g")).messages == 0, "it can be read"
        assert "busy_timeout" in transport.health()
        other.execute("ROLLBACK")
        other.close()
        async with asyncio.timeout(10):  # nobody publishes, and yet it turns green
            while transport.health() is not None:
                await asyncio.sleep(0.05)


# The tables.


@pytest.mark.parametrize("version", [1, 99, "evil", None])
async def test_another_schema_is_refused_with_a_way_out(url: str, version: object) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(1))
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM protoflow_schema")
        if version is not None:
            connection.execute("INSERT INTO protoflow_schema VALUES (?)", (version,))
    connection.close()
    with pytest.raises(
        ConnectionFailedError, match=rf"schema version {version}, .* or name a new file"
    ):
        await make(url).open()
    assert rows(url, "SELECT count(*) FROM protoflow_messages") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE protoflow_messages (mine)",
        "CREATE TABLE protoflow_schema (mine)",
        "CREATE TABLE protoflow_schema (version INTEGER)",
    ],
)
async def test_foreign_tables_of_the_same_names_are_refused(url: str, statement: str) -> None:
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(ConnectionFailedError, match=r"the database has .* name a new file"):
        await make(url).open()
    assert len(rows(url, "SELECT name FROM sqlite_master")) == 1


async def test_making_the_tables_is_all_or_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_TABLES", "CREATE TABLE protoflow_more (x); CREATE TABLE nonsense")
    with pytest.raises(ConnectionFailedError):
        await make(url).open()
    assert rows(url, "SELECT name FROM sqlite_master") == []


async def test_tables_and_version_of_the_application_are_left_alone(url: str) -> None:
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE messages (mine)")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    async with opened(url) as transport:
        await transport.submit(messages(1))
    assert rows(url, "PRAGMA user_version") == [(7,)]


async def test_rows_are_deleted_when_everything_is_done(url: str) -> None:
    async with opened(url) as transport:
        first = await transport.subscribe(settings(ordering=Ordering.PER_KEY), Listener())
        second = await transport.subscribe(settings(group="h"), Listener())
        await transport.submit([*messages(300, key=b"k"), *messages(300)])
        for subscription in (first, second):
            await ack(subscription, await take(subscription, 600))
    for table in ("messages", "deliveries", "sessions"):
        assert rows(url, f"SELECT count(*) FROM protoflow_{table}") == [(0,)]


async def test_a_broadcast_group_goes_with_its_member(url: str) -> None:
    async with opened(url) as transport:
        await transport.subscribe(settings(broadcast=True), Listener())
        await transport.submit(messages(3))
        assert rows(url, "SELECT count(*) FROM protoflow_groups") == [(1,)]
    assert rows(url, "SELECT count(*) FROM protoflow_groups") == [(0,)]


async def test_another_order_is_taken_over(url: str) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(4, key=b"k"))
        await take(subscription, 3)
    async with opened(url) as one, opened(url) as two:
        ordered = settings(ordering=Ordering.PER_KEY)
        first = await one.subscribe(ordered, Listener())
        second = await two.subscribe(ordered, Listener())
        (delivery,) = await take(first)
        with pytest.raises(TimeoutError):
            await take(second, within=0.3)
        await ack(first, [delivery])
        assert [each.message.id for each in await take(first, 3)] == ["m1", "m2", "m3"]


async def test_verify_names_everything_that_is_missing(url: str) -> None:
    async with opened(url) as transport:
        topology = Topology(
            subscriptions=(settings("a", dead_letter_topics=("a..g..dead",)),), topics=("b",)
        )
        with pytest.raises(TopologyError) as caught:
            await transport.ensure(topology, TopologyMode.VERIFY)
        text = str(caught.value)
        assert "topic b, group g of topic a, dead-letter topic a..g..dead" in text
        assert text.endswith("; start once with topology mode create [PF305]")


def test_several_may_make_the_file_at_once(tmp_path: Path) -> None:
    def make(path: str) -> None:
        start.wait()
        location.make(path)
        connection = schema.connect(path, SqliteOptions())
        schema.prepare(connection)
        connection.close()

    start = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for number in range(30):
            made = [pool.submit(make, f"{tmp_path}/{number}.db") for _ in range(8)]
            for one in made:
                one.result()
