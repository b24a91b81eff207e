"""`protoflow replay` from the shell: its options, its question, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.conftest import Done, Project

APP = """\
import asyncio
import os

from shop.v1.orders_pb2 import OrderBilled
from shop.v1.orders_protoflow import OrdersHandler


class Billing(OrdersHandler):
    async def bill_order(self, order, context, /):
        if order.cents == 13:
            await asyncio.sleep(float(os.environ.get("SLEEP", "0")))
            raise ValueError(f"no sum for {order.email}")
        print("handled")
        return OrderBilled(order_id=order.order_id)


class Other(Billing):
    async def bill_order(self, order, context, /):
        return OrderBilled(order_id=order.order_id.lower())
"""


@pytest.fixture
def orders(shop: Project) -> Project:
    """The shop on a log in files, with three orders."""
    shop.use(f"file://{shop.folder}/log")
    shop.write("app.py", APP)
    lines = "\n".join(
        json.dumps({"orderId": f"A-{cents}", "cents": cents, "email": "ann@example.org"})
        for cents in (1, 13, 3)
    )
    assert shop("topology", "apply").code == 0
    assert shop("publish", "OrderPlaced", "-", stdin=lines).code == 0
    return shop


def replay(orders: Project, *arguments: str) -> Done:
    return orders("replay", "OrderPlaced", "--from", "earliest", *arguments)


def test_a_replay_asks_publishes_and_reports(orders: Project) -> None:
    done = replay(orders, "--handler", "app:Billing")
    assert (done.code, done.out) == (2, ""), "nobody was asked"
    assert "give --yes" in done.err
    done = replay(orders, "--handler", "app:Billing", "--yes", "--on-error", "continue")
    assert done.code == 4
    assert "failed: ValueError: no sum for ***" in done.lines[0]
    assert "2 done, 1 failed, 2 outputs published" in done.lines[1]
    assert "dead-lettered" not in done.err
    assert len(orders("tail", "orders.billed", "--no-follow").lines) == 2
    assert "billing  3" in orders("lag").out


def test_two_versions_are_compared(orders: Project) -> None:
    arguments = ("--service", "app:Billing", "--handler", "BillOrder", "--shadow")
    done = replay(orders, *arguments, "--against", "app:Other")
    assert done.code == 1
    assert "    output 1 OrderBilled  order_id: A-1 -> a-1" in done.lines
    assert "    status: failed -> done" in done.lines
    assert "3 of 3 messages differ" in done.lines
    assert replay(orders, *arguments, "--against", "app:Billing", "--json").code == 0
    masked = ("--mask", "order_id", "--mask", "key", "--json")
    found = replay(orders, *arguments, "--against", "app:Other", *masked)
    assert json.loads(found.lines[-1])["different"] == 1, "one failed in one version only"
    assert orders("tail", "orders.billed", "--no-follow").out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name the service with --service"),
        (["--service", "app:Billing", "--against", "app:Other"], "give --shadow --against"),
        (["--service", "app:Billing", "--shadow", "--reprocess"], "leave out --reprocess"),
        (["--service", "app:Billing", "--to", "yesterday", "--shadow"], "write an ISO 8601 time"),
        (["--service", "app:Billing", "--transport", "memory://", "--shadow"], "memory://"),
        (["--service", "app:Billing", "--transport", "nats://x", "--shadow"], "keeps no log"),
    ],
)
def test_mistakes_exit_with_2(orders: Project, arguments: list[str], text: str) -> None:
    done = replay(orders, *arguments)
    assert (done.code, done.out) == (2, "")
    assert text in done.err


def test_ctrl_c_lets_handlers_finish_and_names_the_rest(orders: Project) -> None:
    orders.environ["SLEEP"] = "30"
    running = orders.start(
        "replay", "OrderPlaced", "--from", "earliest", "--handler", "app:Billing", "--yes",
        "--concurrency", "1", "--json",
    )  # fmt: skip
    while not orders("tail", "orders.billed", "--no-follow").out:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)  # cancels the run
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["interrupted"] is True
    assert len(summary["left"]) == 1
    assert summary["versions"][0]["done"] == summary["published"] == 1
