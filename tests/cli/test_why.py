"""`protoflow why`: journal and broker joined, and what is not known."""

from __future__ import annotations

import json
import time

from tests.cli.conftest import Project


def test_the_command_joins_journal_and_broker(shop: Project) -> None:
    shop.environ["PROTOFLOW_JOURNAL"] = "journal.db"
    running = shop.start("run", "app")
    assert running.stdout is not None
    assert running.stdout.readline().startswith("1 handler")
    (bad,) = shop("publish", "OrderPlaced", '{"orderId": "A-2"}').lines
    deadline = time.monotonic() + 60
    while not shop("dlq", "list", "--json").json():
        assert time.monotonic() < deadline
    running.terminate()
    running.communicate(timeout=30)
    assert shop("dlq", "replay", bad, "--yes").code == 0
    assert shop("dlq", "replay", bad, "--yes").code == 2

    done = shop("why", bad, "--json")
    assert done.code == 0, done.err
    report = done.json()
    timeline = [(row["event"], row["attempt"]) for row in report["timeline"]]
    assert timeline == [
        *(("failed", 1), ("failed", 2), ("dead-lettered", 2), ("replayed", None)),
        ("waits again", None),
    ]
    assert report["groups"] == [
        {"topic": "orders.placed", "group": "billing", "state": "waiting"},
    ]
    table = shop("why", bad)
    assert table.code == 0
    for text in ("ValueError: no sum; again in 0.0 s", "searched: journal journal.db, from 2"):
        assert text in table.out
    assert "not searched: successful runs: only journaled with journal_successes" in table.out

    unknown = shop("why", "nothing")
    assert (unknown.code, unknown.lines[0]) == (1, "not known")
    assert "settled or never published" in unknown.out
    unreachable = shop("why", bad, "--transport", "nats://127.0.0.1:1")
    assert unreachable.code in (2, 3)
    for wrong in (["--within", "1"], ["--since", "soon"], ["--scan-limit", "0"]):
        assert shop("why", bad, *wrong).code == 2
    assert shop("why", bad, "--transport", "memory://").code == 2


def test_an_unreachable_broker_leaves_the_journal(shop: Project) -> None:
    from protoflow.journal import Event, Journal

    with Journal(str(shop.folder / "journal.db")) as journal:
        journal.record_event(Event.FAILED, "a", handler="Bill", topic="orders.placed")
    shop.environ |= {"PROTOFLOW_JOURNAL": "journal.db", "PROTOFLOW_CONNECT_TIMEOUT": "1"}
    done = shop("why", "a", "--transport", "jetstream://127.0.0.1:1", "--json")
    assert done.code == 3, done.err
    assert [row["event"] for row in done.json()["timeline"]] == ["failed"]
    assert any("127.0.0.1:1" in place for place in done.json()["not_searched"])


def test_dead_letters_go_to_another_topic(shop: Project) -> None:
    bad = shop.python(FAIL).strip()
    assert shop("dlq", "replay", bad, "--to", "nowhere", "--yes").code == 2
    assert shop("dlq", "replay", bad, "--to", "OrderBilled", "--to-origin", "--yes").code == 2
    dead = shop("dlq", "list", "--json").json()[0]["topic"]
    assert shop("dlq", "replay", bad, "--to", dead, "--yes").code == 2
    done = shop("dlq", "replay", bad, "--to", "shop.v1.OrderBilled", "--yes")
    assert done.out == "1 matched, 1 done, 0 failed\n", done.err
    tail = shop("tail", "OrderBilled", "--from", "earliest", "--no-follow", "--json")
    assert [json.loads(line)["id"] for line in tail.lines] == [bad]
    assert shop("dlq", "list", "--json").json() == []


#: Makes a dead letter, and prints its id.
FAIL = """
import asyncio, os
import protoflow
from app import Billing
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer

async def main():
    service = protoflow.Service()
    service.register(Billing())
    async with service:
        print(await OrdersEventProducer(service).publish_order_placed(OrderPlaced(order_id="A")))
        while not service.stats()["shop.v1.Orders.BillOrder"].dead_lettered:
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
