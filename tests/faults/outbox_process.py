"""What the processes of `test_outbox` do, until they kill themselves.

A writer commits, or rolls back, a row of its own and a message together. A relay publishes into a
file, whose lines are messages: process, number, key.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import asyncpg
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Message, connect
from protoflow.outbox import OutboxRelay, PostgresOutbox, SQLiteOutbox

from tests.outbox.texts import TextProducer

KEYS = 5


def outbox_at(url: str) -> PostgresOutbox | SQLiteOutbox:
    return PostgresOutbox(url, lease=2.0) if "://" in url else SQLiteOutbox(url)


class Log:
    """A transport whose broker is a file; it confirms a little later."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[list[None]]:
        return asyncio.ensure_future(self._submit(messages))

    async def _submit(self, messages: Sequence[Message]) -> list[None]:
        for message in messages:
            key = (message.key or b"").decode()
            os.write(self._file, f"{os.getpid()} {message.id} {key}\n".encode())
        await asyncio.sleep(0.002)
        return [None] * len(messages)


def kill(moment: str, now: str, probability: float) -> None:
    """Kills this process, if this is its moment."""
    if moment == now and random.random() < probability:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_around_deletion(store: Any, moment: str) -> None:
    """Lets the process kill itself between a publish and its deletion, or just after that."""
    delete = store.delete

    async def killing(positions: Collection[int]) -> None:
        kill(moment, "between publish and delete", 0.3)
        await delete(positions)
        kill(moment, "after delete", 0.3)

    store.delete = killing


async def relay(url: str, log: str, moment: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    store = outbox_at(url)
    kill_around_deletion(store, moment)
    async with OutboxRelay(store, Log(log), batch=20):  # type: ignore[arg-type]
        await until_stopped_or_orphaned(stopping)
    await store.close()


async def until_stopped_or_orphaned(stopping: asyncio.Event) -> None:
    parent = os.getppid()
    while not stopping.is_set() and os.getppid() == parent:
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def transaction(connection: Any) -> Any:
    if isinstance(connection, sqlite3.Connection):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
    else:
        async with connection.transaction():
            yield connection


class RollBack(Exception):
    pass


async def write(url: str, name: str, moment: str) -> None:
    """Numbers ascend in each key, for each key has one writer."""
    producer = TextProducer(connect("kafka://nobody.invalid:9092"))
    connection: Any = (
        await asyncpg.connect(url)
        if "://" in url
        else sqlite3.connect(url, timeout=30, isolation_level=None)
    )
    ascending = random.getrandbits(8)
    parent = os.getppid()
    while os.getppid() == parent:
        ascending += 1
        key = f"{name}-{ascending % KEYS}"
        with contextlib.suppress(RollBack):
            async with transaction(connection):
                if "://" in url:
                    row = await connection.fetchrow(
                        "INSERT INTO mine (key) VALUES ($1) RETURNING number", key
                    )
                else:
                    row = connection.execute(
                        "INSERT INTO mine (key) VALUES (?) RETURNING number", (key,)
                    ).fetchone()
                await producer.publish_text(
                    StringValue(value="x"), id=str(row[0]), key=key, in_=connection
                )
                kill(moment, "before commit", 0.05)
                if random.random() < 0.25:
                    raise RollBack
        kill(moment, "after commit", 0.05)
        await asyncio.sleep(0.002)


def run(work: str, *arguments: str) -> None:
    """The process's function."""
    for name in [name for name in os.environ if name.startswith("PROTOFLOW_")]:
        del os.environ[name]  # settings of the tests are none of a service
    asyncio.run({"relay": relay, "writer": write}[work](*arguments))
