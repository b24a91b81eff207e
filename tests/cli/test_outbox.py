"""`protoflow relay` and `protoflow outbox`, in processes of their own."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time

from protoflow.outbox import schema

from tests.cli.conftest import Project

WRITE = """
import asyncio, sqlite3
from protoflow import connect
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer

async def main():
    connection = sqlite3.connect("app.db")
    producer = OrdersEventProducer(connect())
    with connection:
        for number in range(3):
            await producer.publish_order_placed(
                OrderPlaced(order_id=f"A-{number}", cents=1), in_=connection
            )
    connection.close()

asyncio.run(main())
"""
OUTBOX = ("--outbox", "sqlite:///app.db")


def create_outbox(shop: Project) -> None:
    with contextlib.closing(sqlite3.connect(shop.folder / "app.db")) as connection:
        connection.executescript(schema("sqlite"))


def left(shop: Project) -> int:
    with contextlib.closing(sqlite3.connect(shop.folder / "app.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM protoflow_outbox").fetchone()
        return int(count)


def test_a_relay_publishes_until_it_is_stopped(shop: Project) -> None:
    create_outbox(shop)
    shop.python(WRITE)
    assert left(shop) == 3
    running = shop.start("relay", *OUTBOX)
    assert running.stdout is not None
    assert "relaying sqlite:///app.db to sqlite:///shop.db" in running.stdout.readline()
    deadline = time.monotonic() + 30
    while left(shop) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == 0
    assert left(shop) == 0
    done = shop("tail", "OrderPlaced", "--from", "earliest", "--no-follow")
    assert [line for line in ("A-0", "A-1", "A-2") if line in done.out] == ["A-0", "A-1", "A-2"]


def test_parked_messages_are_listed_retried_and_purged(shop: Project) -> None:
    create_outbox(shop)
    shop.python(WRITE)
    with contextlib.closing(sqlite3.connect(shop.folder / "app.db")) as connection, connection:
        connection.execute("UPDATE protoflow_outbox SET parked = 'too large'")
    listed = shop("outbox", "list", *OUTBOX)
    assert listed.lines[0].split() == ["position", "id", "topic", "reason"]
    assert listed.lines[1].split()[2:] == ["orders.placed", "too", "large"]
    position = listed.lines[1].split()[0]
    assert shop("outbox", "list", "--exit-code", *OUTBOX).code == 1
    assert shop("outbox", "retry", position, *OUTBOX).lines == ["retried 1 message"]
    assert shop("outbox", "retry", position, *OUTBOX).code == 2
    assert shop("outbox", "purge", "--all", *OUTBOX).code == 2, "it is not asked"
    assert shop("outbox", "purge", "--all", "--yes", *OUTBOX).lines == ["purged 2 messages"]
    assert shop("outbox", "list", "--exit-code", *OUTBOX).code == 0
    assert left(shop) == 1
    # More than a command reads at once.
    with contextlib.closing(sqlite3.connect(shop.folder / "app.db")) as connection, connection:
        names = "id, topic, payload, key, metadata, due, stored"
        connection.execute(
            f"INSERT INTO protoflow_outbox ({names}, parked) WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) "
            f"SELECT {names}, 'too large' FROM protoflow_outbox, n"
        )
    assert shop("outbox", "retry", "10400", *OUTBOX).lines == ["retried 1 message"]
    assert shop("outbox", "purge", "--all", "--yes", *OUTBOX).lines == ["purged 10499 messages"]
    for arguments in (["relay"], ["outbox", "list"]):
        done = shop(*arguments)
        assert done.code == 2
        assert "PROTOFLOW_OUTBOX" in done.err
