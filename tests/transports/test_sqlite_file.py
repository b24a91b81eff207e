"""The URL, the file and the tables of sqlite."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from protoflow.errors import (
    ConfigError,
    ConnectionFailedError,
    TopologyError,
)
from protoflow.spec import Ordering
from protoflow.transport import Topology, TopologyMode
from protoflow.transports.sqlite import schema
from protoflow.transports.sqlite.options import SqliteOptions

from tests.transports.making import Listener, ack, make, messages, opened, settings, take


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


# The tables.


async def test_a_newer_schema_is_refused(url: str) -> None:
    async with opened(url):
        pass
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE protoflow_schema SET version = 99")
    connection.close()
    with pytest.raises(ConnectionFailedError, match="schema version 99, this protoflow knows"):
        await make(url).open()
    assert rows(url, "SELECT version FROM protoflow_schema") == [(99,)]


async def test_an_older_schema_is_brought_up_to_date(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(3))
    step = "ALTER TABLE protoflow_topics ADD COLUMN note TEXT; CREATE TABLE protoflow_more (x);"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await ack(subscription, await take(subscription, 3))
    assert rows(url, "SELECT version FROM protoflow_schema") == [(len(schema.STEPS),)]
    assert rows(url, "SELECT note FROM protoflow_topics") == [(None,)]


async def test_a_migration_that_fails_changes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url):
        pass
    step = "CREATE TABLE protoflow_more (x); CREATE TABLE nonsense"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))
    with pytest.raises(ConnectionFailedError):
        await make(url).open()
    assert rows(url, "SELECT name FROM sqlite_master WHERE name = 'protoflow_more'") == []


async def test_tables_and_version_of_the_application_are_left_alone(url: str) -> None:
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE messages (mine)")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    async with opened(url) as transport:
        await transport.submit(messages(1))
    assert rows(url, "PRAGMA user_version") == [(7,)]


async def test_books_are_closed_when_everything_is_done(url: str) -> None:
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


def test_several_may_make_the_file_at_once(tmp_path: Path) -> None:
    def make(path: str) -> None:
        start.wait()
        connection = schema.connect(path, SqliteOptions())
        schema.migrate(connection)
        connection.close()

    start = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for number in range(30):
            made = [pool.submit(make, f"{tmp_path}/{number}.db") for _ in range(8)]
            for one in made:
                one.result()
