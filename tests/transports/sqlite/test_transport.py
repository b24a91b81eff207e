"""The bounds, errors and transactions of sqlite."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from protoflow.contract.spec import Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    PublishError,
    PublishRefusedError,
    TransportError,
)
from protoflow.message import Message, Settlement, SettleResult

from tests.transports.harness import Listener, ack, messages, opened, settings, take


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


def rows(url: str, query: str) -> list[Any]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


# Bounds.


async def test_what_nobody_takes_is_bounded_by_number_and_age(url: str) -> None:
    async with opened(url, options={"retained_messages": 3}) as transport:
        await transport.submit(messages(5))
        await transport.subscribe(settings("consumed"), Listener())
        await transport.submit(messages(5, "consumed"))
        await transport._clean()
        subscription = await transport.subscribe(settings(), Listener())
        assert [each.message.id for each in await take(subscription, 3)] == ["m2", "m3", "m4"]
        assert (await transport.lag("consumed", "g")).messages == 5
    async with opened(url, options={"retention": "50ms"}) as transport:
        await transport.submit(messages(2500, "u"))
        await asyncio.sleep(0.1)
        await transport.submit([Message(id="young", topic="u", payload=b"")])
        await transport._clean()
        subscription = await transport.subscribe(settings("u"), Listener())
        assert [each.message.id for each in await take(subscription)] == ["young"]


async def test_dead_letters_outlive_retention(url: str) -> None:
    async with opened(url, options={"retained_messages": 0, "retention": 0}) as transport:
        await transport.subscribe(settings(dead_letter_topics=("t..g..dead",)), Listener())
        await transport.submit(messages(3, "t..g..dead"))
        await transport._clean()
        assert await dead_letters_of(transport).count("t..g..dead") == 3


async def test_a_topic_that_nobody_consumes_is_an_error_where_that_is_wanted(url: str) -> None:
    async with opened(url, require_subscriber=True) as transport:
        await transport.subscribe(settings("u", dead_letter_topics=("u..g..dead",)), Listener())
        errors = await transport.submit(
            [*messages(2, "t"), *messages(1, "u"), *messages(1, "u..g..dead")]
        )
        assert [type(error) for error in errors] == [
            PublishError,
            PublishError,
            type(None),
            type(None),
        ]
        assert "no group consumes t" in str(errors[0])
        assert (await transport.lag("u", "g")).messages == 1


async def test_a_message_too_large_is_refused_and_the_others_are_taken(url: str) -> None:
    async with opened(f"{url}?max_message_bytes=1000") as transport:
        assert transport.capabilities.max_message_bytes == 1000
        small, large = messages(2)
        large.payload = bytes(1001)
        errors = await transport.submit([small, large, small])
        assert errors[0] is errors[2] is None
        assert isinstance(errors[1], PublishRefusedError)


async def test_a_refused_output_undoes_its_settlement(url: str) -> None:
    async with opened(f"{url}?max_message_bytes=100") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(2))
        bad, good = await take(subscription, 2)
        large = Message(id="o", topic="out", payload=bytes(200))
        small = Message(id="o", topic="out", payload=b"")
        results = await subscription.settle(
            [Settlement(bad, outputs=[small, large]), Settlement(good, outputs=[small])]
        )
        assert results == [SettleResult.REFUSED, SettleResult.DONE]
        reader = await transport.subscribe(settings("out"), Listener())
        assert len(await take(reader)) == 1
        assert (await transport.lag("out", "g")).messages == 1
        await ack(subscription, [bad])


async def test_outputs_need_a_subscriber_where_that_is_wanted(url: str) -> None:
    async with opened(url, require_subscriber=True) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        reader = await transport.subscribe(settings("out"), Listener())
        await transport.submit(messages(3))
        batch = await take(subscription, 3)
        outputs = [[Message(id="o", topic=topic, payload=b"")] for topic in ("out", "nowhere")]
        settlements = [
            Settlement(batch[0], outputs=outputs[0]),
            Settlement(batch[1], outputs=outputs[1]),
            Settlement(batch[2]),
        ]
        results = await subscription.settle(settlements)
        assert results == [SettleResult.DONE, SettleResult.REFUSED, SettleResult.DONE]
        assert len(await take(reader)) == 1
        await ack(subscription, [batch[1]])
        assert (await transport.lag("t", "g")).messages == 0


async def test_large_and_small_payloads_in_one_claim(url: str) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        payloads = [b"", None, os.urandom(100_000), b"x", os.urandom(40_000), b"-", b"+"]
        await transport.submit(
            [
                Message(id=str(index), topic="t", payload=payload)
                for index, payload in enumerate(payloads)
            ]
        )
        batch = await take(subscription, len(payloads))
        assert [delivery.message.payload for delivery in batch] == payloads
        await ack(subscription, batch)


# Errors.


async def test_a_locked_file_is_a_passing_error_with_its_cause(url: str) -> None:
    async with opened(f"{url}?busy_timeout=100ms") as transport:
        listener = Listener()
        subscription = await transport.subscribe(settings(), listener)
        await transport.submit(messages(1))
        (delivery,) = await take(subscription)
        other = sqlite3.connect(transport.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        (error,) = await transport.submit(messages(1))
        assert isinstance(error, PublishError)
        assert not isinstance(error, PublishRefusedError)
        assert "busy_timeout" in str(error)
        assert isinstance(error.__cause__, sqlite3.OperationalError)
        assert transport.health() is not None
        with pytest.raises(TransportError, match="busy_timeout"):
            await subscription.settle([Settlement(delivery)])
        receiving = asyncio.ensure_future(subscription.receive(1, 100))
        await asyncio.sleep(0.3)
        assert [healthy for healthy, _ in listener.health] == [False]
        other.execute("ROLLBACK")
        other.close()
        await ack(subscription, [delivery])
        assert await transport.submit(messages(1)) == [None]
        assert len(await asyncio.wait_for(receiving, 5)) == 1
        assert [healthy for healthy, _ in listener.health] == [False, True]
        assert transport.health() is None


async def test_a_full_disk_is_a_passing_error(url: str) -> None:
    async with opened(url) as transport:
        await transport.worker.call(
            lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchall(),
            writes=False,
        )
        (error,) = await transport.submit([Message(id="1", topic="t", payload=bytes(500_000))])
        assert isinstance(error, PublishError)
        assert "full" in str(error)
        await transport.worker.call(
            lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall(),
            writes=False,
        )
        assert await transport.submit(messages(1)) == [None]


async def test_one_bad_job_takes_no_other_along(url: str) -> None:
    async with opened(url) as transport:
        results = await asyncio.gather(
            transport.submit(messages(1)),
            transport.worker.call(_fail),
            transport.submit(messages(1)),
            return_exceptions=True,
        )
        assert results[0] == results[2] == [None]
        assert isinstance(results[1], TransportError)
        assert (await transport.worker.call(_count, writes=False)) == 2


def _fail(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO nowhere VALUES (1)")


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM protoflow_messages").fetchone()[0])


# Transactions.


async def test_writes_of_the_application_join_the_transaction(url: str) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(2))
        for delivery, commits in zip(await take(subscription, 2), (True, False), strict=True):
            try:
                async with transport.transaction() as transaction:
                    transaction.connection.execute("CREATE TABLE IF NOT EXISTS mine (x)")
                    transaction.connection.execute("INSERT INTO mine VALUES (?)", (commits,))
                    await transaction.settle(Settlement(delivery))
                    if not commits:
                        raise asyncio.CancelledError
            except asyncio.CancelledError:
                pass
        assert rows(url, "SELECT x FROM mine") == [(1,)]
        assert (await transport.lag("t", "g")).messages == 1


async def test_what_waits_for_a_transaction_of_its_own_process_fails_and_does_not_hang(
    url: str,
) -> None:
    async with opened(f"{url}?busy_timeout=200ms") as transport:
        async with transport.transaction() as transaction:
            await transaction.publish(*messages(1))
            (error,) = await transport.submit(messages(1))
            assert "transaction of this process" in str(error)
        assert await transport.submit(messages(1)) == [None]
        assert (await transport.lag("t", "none")).messages == 0


async def test_retained_dead_letters_become_dead_letters_when_their_topic_does(url: str) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(2, "t..g..dead"))
        assert await dead_letters_of(transport).count("t..g..dead") == 0
        await transport.subscribe(settings(dead_letter_topics=("t..g..dead",)), Listener())
        assert await dead_letters_of(transport).count("t..g..dead") == 2


async def test_a_group_that_starts_latest_begins_behind_everything(url: str) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(5))
        subscription = await transport.subscribe(settings(start=Start.LATEST), Listener())
        await transport.submit([Message(id="new", topic="t", payload=b"")])
        assert [each.message.id for each in await take(subscription)] == ["new"]
        assert (await transport.lag("t", "g")).messages == 1
