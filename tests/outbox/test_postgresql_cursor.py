"""The cursor of a relay misses no message, however transactions overlap, and keeps each key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow import Message
from protoflow.outbox import PostgresOutbox, postgresql_cursor
from protoflow.outbox.postgresql_cursor import Cursor
from protoflow.outbox.tables import store_in

KEYS = (b"a", b"b")
WRITERS = 4


@dataclass
class Writer:
    """A connection with perhaps a transaction.

    Attributes:
        written: the numbers of this transaction, each with what was committed before it.
    """

    connection: asyncpg.Connection
    transaction: Any = None  # Any: asyncpg has no types
    written: list[tuple[int, frozenset[int]]] = field(default_factory=list)


class Play:
    """Transactions that overlap, and a relay that reads between their steps."""

    def __init__(self, store: PostgresOutbox, writers: list[Writer], limit: int) -> None:
        self.store = store
        self.writers = writers
        self.limit = limit
        self.number = 0
        self.before: dict[int, frozenset[int]] = {}
        self.read: list[int] = []

    async def step(self, who: int, what: str) -> None:
        writer = self.writers[who]
        if what == "read":
            await self.relay()
            return
        if writer.transaction is None and what in ("number", "write"):
            writer.transaction = writer.connection.transaction()
            await writer.transaction.start()
        if what == "number":  # long before it writes a message
            await writer.connection.execute("SELECT pg_current_xact_id()")
        elif what == "write":
            key = KEYS[self.number % len(KEYS)]
            message = Message(id=str(self.number), topic="t", payload=b"", key=key)
            await store_in(writer.connection, [message])
            writer.written.append((self.number, frozenset(self.before)))
            self.number += 1
        elif writer.transaction is not None:
            await self.end(writer, commits=what == "commit")

    async def end(self, writer: Writer, *, commits: bool) -> None:
        transaction, writer.transaction = writer.transaction, None
        written, writer.written = writer.written, []
        if commits:
            await transaction.commit()
            self.before.update(written)
        else:
            await transaction.rollback()

    async def relay(self) -> None:
        found = await self.store.pending(self.limit, again=False)
        await self.store.delete([each.position for each in found])
        self.read += [int(each.message.id) for each in found]

    def check(self) -> None:
        assert sorted(self.read) == sorted(self.before), "each committed message, once"
        at = {number: index for index, number in enumerate(self.read)}
        for number, earlier in self.before.items():
            for other in earlier:
                if number % len(KEYS) == other % len(KEYS):
                    assert at[other] < at[number], "an order of transactions was inverted"


steps = st.tuples(
    st.integers(0, WRITERS - 1),
    st.sampled_from(["write", "write", "write", "commit", "commit", "read", "number", "rollback"]),
)


@dataclass
class Bench:
    """Connections that all examples share, on a loop of their own."""

    runner: asyncio.Runner
    store: PostgresOutbox
    writers: list[Writer]


@pytest.fixture
def shared(postgres_database: str) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        store = PostgresOutbox(postgres_database, lease=3600.0)
        assert runner.run(store.claim(store))
        writers = [Writer(runner.run(asyncpg.connect(postgres_database))) for _ in range(WRITERS)]
        yield Bench(runner, store, writers)
        for writer in writers:
            runner.run(writer.connection.close())
        runner.run(store.close())


def test_nothing_is_missed_and_no_key_inverted(shared: Bench) -> None:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(steps, min_size=10, max_size=50), st.sampled_from([1, 2, 100]))
    def play(plan: list[tuple[int, str]], limit: int) -> None:
        shared.runner.run(_play(shared, plan, limit))

    play()


async def _play(shared: Bench, plan: list[tuple[int, str]], limit: int) -> None:
    writers = shared.writers
    play = Play(shared.store, writers, limit)
    try:
        for who, what in plan:
            await play.step(who, what)
    finally:
        for writer in writers:
            if writer.transaction is not None:
                await play.end(writer, commits=True)
        for _ in range(len(play.before) + 2):
            await play.relay()
    play.check()


class Numbers:
    """A server on which nothing happens but what a cursor asks for."""

    def __init__(self) -> None:
        self.next = 10
        self.numbered = 0
        self.bases: list[object] = []

    async def fetch(self, query: str, *values: object) -> list[Any]:
        if query == postgresql_cursor._NUMBERED:
            self.numbered += 1
            self.next += 1
            return [(0, str(self.next))]
        if query == postgresql_cursor._NOW:
            return [(f"{self.next}:{self.next}:", 0)]
        if query == postgresql_cursor._READ:
            self.bases.append(values[2])
        return []


async def test_a_relay_with_nothing_to_do_draws_no_transaction_ids() -> None:
    server = Numbers()
    cursor = Cursor(server)  # type: ignore[arg-type]
    for _ in range(5):
        assert await cursor.read([0], 10) == []
    assert server.numbered == 1
    server.next += 1  # somebody commits
    await cursor.read([0], 10)
    assert server.numbered == 2


async def test_after_a_failover_to_a_standby_that_was_behind_all_is_read_again() -> None:
    server = Numbers()
    cursor = Cursor(server)  # type: ignore[arg-type]
    await cursor.read([0], 10)
    server.next = 8
    await cursor.read([0], 10)
    server.next += 1
    await cursor.read([0], 10)
    assert server.bases == ["1:1:", "1:1:", "9:9:"]


async def test_what_was_restored_from_a_dump_is_published(postgres_url: str) -> None:
    """Its transactions have numbers of the server that was dumped."""
    store = PostgresOutbox(postgres_url)
    assert await store.claim(store)
    await store.store([Message(id=str(n), topic="t", payload=b"", key=b"k") for n in "12"], None)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE protoflow_outbox SET xid = '900000000000'::xid8")
    await connection.close()
    assert [each.message.id for each in await store.pending(10)] == ["1", "2"]
    await store.close()
