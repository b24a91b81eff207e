from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Context, Message, Output, Service
from protoflow.errors import ConfigError, RegistrationError
from protoflow.message import Delivery
from protoflow.middleware import Dependencies, default_chain
from protoflow.middleware.outbox import CONNECTION
from protoflow.observability.prometheus import Exposition
from protoflow.outbox import PostgresOutbox, SQLiteOutbox, schema
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next

from tests.database import users
from tests.database.conftest import postgres_database, postgres_url
from tests.middleware.harness import NAME, TO_DONE, TO_WORK, config, put, running, worker

__all__ = ["postgres_database", "postgres_url"]


async def answer(_message: object, _context: Context) -> Int64Value:
    return Int64Value(value=7)


class Kept:
    def __init__(self, fails: int = 0) -> None:
        self.messages: list[Message] = []
        self.connections: list[Any] = []
        self.fails = fails

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("the disk is full")
        self.messages += messages
        self.connections.append(connection)


async def test_outputs_are_stored_in_place_of_being_published() -> None:
    """Trap B16: an outbox that stored and published."""
    store = Kept(fails=1)
    handler = worker(answer, publication=TO_DONE)
    async with running(handler, dependencies=Dependencies(outbox=store)) as service:
        await put(service, "a")
        assert not service.published(Int64Value)
        stats = service.service.stats()[NAME]
    (message,) = store.messages
    assert message.topic == "done"
    assert message.metadata["ce_type"] == "google.protobuf.Int64Value"
    assert (stats.handled, stats.failed_runs) == (1, 1)


async def test_a_relay_publishes_what_waits(tmp_path: Path) -> None:
    store = SQLiteOutbox(tmp_path / "outbox.db")
    handler = worker(answer, publication=TO_DONE)
    async with running(
        handler, dependencies=Dependencies(outbox=store), virtual_time=False
    ) as service:
        await put(service, "a", "b")
        relay = service.service._inspection._relay
        assert relay is not None
        while (await store.backlog())[0]:
            await service.advance(0.05)
        await service.service.reporter.refresh()
        text = Exposition(service.service.reporter).render()[0].decode()
        published = [message for message in service.messages if message.topic == "done"]
    assert "protoflow_outbox_pending 0.0" in text
    assert len({message.id for message in published}) == 2
    assert published[0].metadata["causation_id"] == service.messages[0].id
    await store.close()


async def test_the_store_writes_in_the_transaction_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute(SQLiteOutbox.SCHEMA)
    connection.execute("CREATE TABLE bills (id TEXT)")
    connection.commit()
    attempts = 0

    def in_transaction(next: Next, spec: HandlerSpec) -> Next:
        async def run(delivery: Delivery, context: Context) -> Outcome:
            nonlocal attempts
            context.values[CONNECTION] = connection
            with connection:
                outcome = await next(delivery, context)
                attempts += 1
                if attempts == 1:
                    raise RuntimeError("the commit fails")
                return outcome

        return run

    async def bill(message: Any, context: Context) -> Int64Value:
        context.values[CONNECTION].execute("INSERT INTO bills VALUES (?)", (message.value,))
        return Int64Value(value=1)

    store = SQLiteOutbox(path)
    chain = default_chain(Dependencies(outbox=store)).add(
        "transaction", in_transaction, before="proto_validate"
    )
    async with running(worker(bill, publication=TO_DONE), middleware=chain) as service:
        await put(service, "a")
        assert attempts == 2
    assert connection.execute("SELECT * FROM bills").fetchall() == [("a",)]
    assert (await store.backlog())[0] == 1
    await store.close()
    connection.close()


async def test_a_relay_that_does_not_get_on_turns_readiness_red(tmp_path: Path) -> None:
    class Broken(SQLiteOutbox):
        async def pending(self, limit: int, behind: Any = (), **options: Any) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

    store = Broken(tmp_path / "outbox.db")
    handler = worker(answer, publication=TO_DONE)
    async with running(
        handler, dependencies=Dependencies(outbox=store), virtual_time=False
    ) as service:
        await service.advance(0.05)
        health = service.service.health()
    assert health.problems["outbox"] == "the outbox is not relayed: OperationalError"
    await store.close()


async def test_streams_do_not_go_around_the_outbox() -> None:
    async def stream(_message: object, _context: Context):  # type: ignore[no-untyped-def]
        yield Int64Value(value=1)

    handler = worker(stream, publication=TO_DONE, streams=True)
    with pytest.raises(ConfigError, match="cannot use the outbox"):
        async with running(handler, dependencies=Dependencies(outbox=Kept())):
            pass


async def test_a_whole_chain_must_be_given_its_outbox_itself() -> None:
    with pytest.raises(ConfigError, match="default_chain"):
        async with running(
            worker(answer), middleware=default_chain(), dependencies=Dependencies(outbox=Kept())
        ):
            pass
    with pytest.raises(ConfigError, match="no such dependency"):
        default_chain({"hook": 1})  # type: ignore[arg-type]  # refused at run time, too


async def test_the_outbox_of_a_whole_chain_is_relayed_when_the_service_is_reported(
    tmp_path: Path,
) -> None:
    store = SQLiteOutbox(tmp_path / "outbox.db")
    service = Service(config(), middleware=default_chain(Dependencies(outbox=store)))
    service.register(worker(answer, publication=TO_DONE))
    service.relay_outbox(store)
    with pytest.raises(RegistrationError, match="already"):
        service.relay_outbox(store)
    async with service:
        await service.publish_outputs(TO_WORK, [Output(StringValue(value="a"))])
        async with asyncio.timeout(5):
            while not service.stats()[NAME].handled or (await store.backlog())[0]:
                await asyncio.sleep(0.01)
    await store.close()


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "sqlalchemy-asyncpg-session"])
async def test_outputs_join_the_transaction_of_any_connection(kind: str, postgres_url: str) -> None:
    await users.prepare(postgres_url)
    await users.execute(postgres_url, schema("postgresql"))
    attempts = 0
    async with users.POSTGRES[kind](postgres_url) as user:

        def in_transaction(next: Next, spec: HandlerSpec) -> Next:
            async def run(delivery: Delivery, context: Context) -> Outcome:
                nonlocal attempts
                async with user.transaction() as connection:
                    context.values[CONNECTION] = connection
                    outcome = await next(delivery, context)
                    attempts += 1
                    if attempts == 1:
                        raise RuntimeError("the commit fails")
                    return outcome

            return run

        async def bill(message: Any, context: Context) -> Int64Value:
            await user.write(context.values[CONNECTION], message.value)
            return Int64Value(value=1)

        store = PostgresOutbox(postgres_url)  # which needs no connection of its own
        chain = default_chain(Dependencies(outbox=store)).add(
            "transaction", in_transaction, before="proto_validate"
        )
        async with running(
            worker(bill, publication=TO_DONE), middleware=chain, virtual_time=False
        ) as service:
            await put(service, "a")
            async with asyncio.timeout(20):
                while attempts < 2:
                    await service.advance(0.05)
            await service.advance(0.05)
    assert await users.rows(postgres_url, "SELECT text FROM mine") == [("a",)]
    assert await users.rows(postgres_url, "SELECT topic FROM protoflow_outbox") == [("done",)]
