"""Publishing in the caller's transaction: the message exists if and only if it commits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.sdk.trace import TracerProvider
from protoflow import Config, Context, Message, Service, connect, connect_sync
from protoflow.errors import CapabilityError, ConfigError, PublishError
from protoflow.events import CloudEvent
from protoflow.outbox import schema

from tests.database import users
from tests.outbox.texts import TextProducer, TextProducerSync

KINDS = [*users.POSTGRES, *users.SQLITE]


def text(value: str) -> StringValue:
    return StringValue(value=value)


@pytest.fixture
async def database(kind: str, postgres_url: str, tmp_path: Path) -> str:
    """A database with the user's own table and an outbox."""
    url = str(tmp_path / "own.db") if kind in users.SQLITE else postgres_url
    await users.prepare(url)
    await users.execute(url, schema("postgresql" if "://" in url else "sqlite"))
    return url


async def stored(url: str) -> list[str]:
    found = await users.rows(url, "SELECT payload FROM protoflow_outbox ORDER BY position")
    return [StringValue.FromString(payload).value for (payload,) in found]


async def play(user: users.User, producer: TextProducer) -> None:
    """One transaction that commits, and two that do not."""
    async with user.transaction() as connection:
        await user.write(connection, "own 1")
        assert await producer.publish_text(text("1"), id="id-1", in_=connection) == "id-1"
        await producer.publish_text_many([text("2"), text("3")], in_=connection)
    with contextlib.suppress(users.RollBack):
        async with user.transaction() as connection:
            await user.write(connection, "own 4")
            await producer.publish_text(text("4"), in_=connection)
            raise users.RollBack
    with contextlib.suppress(asyncio.CancelledError):
        async with user.transaction() as connection:
            await producer.publish_text(text("5"), in_=connection)
            raise asyncio.CancelledError


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_is_in_the_outbox_if_its_transaction_commits(
    kind: str, database: str
) -> None:
    publisher = connect("kafka://nobody.invalid:9092")  # which is never opened
    async with (users.POSTGRES | users.SQLITE)[kind](database) as user:
        await play(user, TextProducer(publisher))
    assert await stored(database) == ["1", "2", "3"]
    assert await users.rows(database, "SELECT text FROM mine") == [("own 1",)]
    ((id, topic, key, metadata),) = await users.rows(
        database, "SELECT id, topic, key, metadata FROM protoflow_outbox WHERE id = 'id-1'"
    )
    assert (id, topic, bytes(key)) == ("id-1", "texts", b"1")
    assert '"ce_type": "google.protobuf.StringValue"' in metadata


async def received(url: str, count: int) -> list[str]:
    """What a service gets of the transport at a URL."""
    values: list[str] = []
    done = asyncio.Event()

    async def handle(message: StringValue, context: Context) -> None:
        values.append(message.value)
        if len(values) == count:
            done.set()

    service = Service(Config(transport=url))
    service.register_proto_handler("reads", "texts", StringValue, handle)
    async with service, asyncio.timeout(20):
        await done.wait()
        await asyncio.sleep(0.1)  # for what should not come
    return sorted(values)


@pytest.mark.parametrize("kind", [*users.POSTGRES])
async def test_a_message_is_in_the_log_of_the_transport_if_its_transaction_commits(
    kind: str, database: str
) -> None:
    async with connect(database) as publisher, users.POSTGRES[kind](database) as user:
        await play(user, TextProducer(publisher))
    assert await received(database, 3) == ["1", "2", "3"]
    assert await stored(database) == []


async def test_consumers_are_woken_when_the_transaction_commits(postgres_url: str) -> None:
    times: list[float] = []
    got = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(message: StringValue, context: Context) -> None:
        times.append(loop.time())
        got.set()

    config = Config(transport=postgres_url, transport_options={"poll_interval": 5.0})
    service = Service(config)
    service.register_proto_handler("reads", "texts", StringValue, handle)
    connection = await asyncpg.connect(postgres_url)
    async with service:
        async with connection.transaction():
            await TextProducer(service).publish_text(text("1"), in_=connection)
            await asyncio.sleep(0.2)
            assert not times
        async with asyncio.timeout(4):  # a poll comes later
            await got.wait()
    await connection.close()


async def test_the_relay_of_the_same_process_is_woken(postgres_url: str) -> None:
    service = Service(Config(transport="memory://", outbox=postgres_url))
    got = asyncio.Event()

    async def handle(message: StringValue, context: Context) -> None:
        assert (context.id, context.key, message.value) == ("id-1", b"1", "1")
        got.set()

    service.register_proto_handler("reads", "texts", StringValue, handle)
    connection = await asyncpg.connect(postgres_url)
    async with service:
        relay = service._inspection._relay
        assert relay is not None
        relay._poll = 30.0
        await asyncio.sleep(0.2)
        async with connection.transaction():
            await TextProducer(service).publish_text(text("1"), id="id-1", in_=connection)
        async with asyncio.timeout(10):
            await got.wait()
    await connection.close()


@pytest.mark.parametrize("kind", ["psycopg", "sqlite3"])
async def test_synchronous_code_publishes_in_its_transaction(kind: str, database: str) -> None:
    def work() -> None:
        with connect_sync("memory://") as publisher:
            producer = TextProducerSync(publisher)
            sync: Any = psycopg.connect if kind == "psycopg" else sqlite3.connect
            connection = sync(database)
            producer.publish_text(text("1"), in_=connection)
            producer.publish_text_many([text("2"), text("3")], in_=connection)
            connection.commit()
            producer.publish_text(text("4"), in_=connection)
            publisher.bind(connection).publish(Message(id="5", topic="texts", payload=b""))
            connection.rollback()
            connection.close()

    await asyncio.to_thread(work)
    assert await stored(database) == ["1", "2", "3"]


async def test_synchronous_code_publishes_to_the_log_of_the_transport(postgres_url: str) -> None:
    def work() -> None:
        with connect_sync(postgres_url) as publisher, psycopg.connect(postgres_url) as connection:
            TextProducerSync(publisher).publish_text(text("1"), in_=connection)

    await asyncio.to_thread(work)
    assert await received(postgres_url, 1) == ["1"]


@pytest.mark.parametrize("kind", ["sqlite3"])
async def test_everything_that_publishes_can_be_bound(kind: str, database: str) -> None:
    service = Service(Config(transport="memory://"))
    async with service:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            bound = service.bind(connection)
            await bound.publish(Message(id="raw", topic="texts", payload=b"x"))
            await bound.publish_proto("texts", text("proto"))
            await bound.publish_event(CloudEvent(type="event", source="s", data={"a": 1}))
            await bound.publish_data("data", "s", {"a": 1})
    found = await users.rows(database, "SELECT topic FROM protoflow_outbox ORDER BY position")
    assert found == [("texts",), ("texts",), ("event",), ("data",)]


@pytest.mark.parametrize("kind", ["sqlite3"])
async def test_a_message_outside_of_any_transaction_is_refused(kind: str, database: str) -> None:
    producer = TextProducer(connect("memory://"))
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        with pytest.raises(ConfigError, match="no open transaction"):
            await producer.publish_text(text("1"), in_=connection)
        connection.execute("BEGIN")
        await producer.publish_text(text("2"), in_=connection)
        connection.execute("COMMIT")
    assert await stored(database) == ["2"]


async def test_a_missing_table_is_named_with_its_remedy(tmp_path: Path, postgres_url: str) -> None:
    producer = TextProducer(connect("kafka://nobody.invalid:9092"))
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "empty.db")) as connection,
        pytest.raises(PublishError, match=r'protoflow_outbox.*protoflow\.outbox\.schema\("sqlite'),
    ):
        await producer.publish_text(text("1"), in_=connection)
    other = await asyncpg.connect(postgres_url)
    with pytest.raises(PublishError, match=r'protoflow\.outbox\.schema\("postgresql'):
        async with other.transaction():
            await producer.publish_text(text("1"), in_=other)
    await other.close()


@pytest.mark.parametrize("kind", ["sqlite3"])
async def test_what_the_broker_can_never_keep_is_refused_before_it_is_stored(
    kind: str, database: str
) -> None:
    producer = TextProducer(connect("kafka://nobody.invalid:9092"))
    with (
        contextlib.closing(sqlite3.connect(database)) as connection,
        pytest.raises(CapabilityError, match="delayed"),
    ):
        await producer.publish_text(text("1"), delay=timedelta(seconds=5), in_=connection)


async def test_a_publisher_without_transactions_says_so() -> None:
    class Own:
        async def publish_outputs(self, publication: object, outputs: object) -> list[str]:
            return []

    with pytest.raises(ConfigError, match="Own cannot publish in a transaction"):
        await TextProducer(Own()).publish_text(text("1"), in_=object())


async def test_settings_and_store_are_not_both_given(tmp_path: Path) -> None:
    from protoflow.outbox import SQLiteOutbox

    store = SQLiteOutbox(tmp_path / "a.db")
    config = Config(transport="memory://", outbox=f"sqlite:///{tmp_path}/b.db")
    with pytest.raises(ConfigError, match="leave out one"):
        async with Service(config, outbox=store):
            pass
    await store.close()
    with pytest.raises(ConfigError, match="outbox: kafka:// is no database"):
        Config(outbox="kafka://a:9092")


@pytest.mark.parametrize("kind", ["sqlite3"])
async def test_the_trace_goes_along(kind: str, database: str) -> None:
    service = Service(Config(transport="memory://"), tracer_provider=TracerProvider())
    async with service:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            await TextProducer(service).publish_text(text("1"), in_=connection)
    ((metadata,),) = await users.rows(database, "SELECT metadata FROM protoflow_outbox")
    assert '"traceparent": "00-' in metadata
