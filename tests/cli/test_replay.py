"""`protoflow replay` from the shell: its options, its question, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Project

APP = """\
import asyncio
import os
import pathlib

from shop.v1.orders_pb2 import OrderBilled
from shop.v1.orders_protoflow import OrdersHandler


class Billing(OrdersHandler):
    async def bill_order(self, order, context, /):
        if order.cents == 13:
            if "SLEEP" in os.environ:
                pathlib.Path("sleeping").touch()
                await asyncio.sleep(float(os.environ["SLEEP"]))
            raise ValueError(f"no sum for {order.email}")
        print("handled")
        return OrderBilled(order_id=order.order_id)


class Other(Billing):
    async def bill_order(self, order, context, /):
        return OrderBilled(order_id=order.order_id.lower())
"""
#: Runs commands in one process, and prints the exit code and the output of each.
PROGRAM = """
import contextlib, io, json
from protoflow.cli.app import main

for arguments in {runs}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
FROM = ["replay", "OrderPlaced", "--from", "earliest"]
COMPARE = [*FROM, "--service", "app:Billing", "--handler", "BillOrder", "--shadow", "--against"]


def run(project: Project, *runs: list[str]) -> list[Done]:
    """The results of commands."""
    lines = project.python(PROGRAM.format(runs=[*runs])).splitlines()
    return [Done(*json.loads(line)) for line in lines]


@pytest.fixture
def orders(shop: Project) -> Project:
    """The shop on a log in files, with three orders."""
    shop.use(f"file://{shop.folder}/log")
    shop.write("app.py", APP)
    lines = [
        json.dumps({"orderId": f"A-{cents}", "cents": cents, "email": "ann@example.org"})
        for cents in (1, 13, 3)
    ]
    file = shop.write("orders.jsonl", "\n".join(lines))
    made = run(shop, ["topology", "apply"], ["publish", "OrderPlaced", f"@{file}"])
    assert [done.code for done in made] == [0, 0], made
    return shop


def test_a_replay_asks_publishes_and_reports(orders: Project) -> None:
    billing = [*FROM, "--handler", "app:Billing"]
    asked, done, billed, lag = run(
        orders,
        billing,
        [*billing, "--yes", "--on-error", "continue"],
        ["tail", "orders.billed", "--no-follow"],
        ["lag"],
    )
    assert (asked.code, asked.out) == (2, ""), "nobody was asked"
    assert "give --yes" in asked.err
    assert done.code == 4
    failure, counts = sorted(done.lines)
    assert "failed: ValueError: no sum for ***" in failure
    assert "2 done, 1 failed, 2 outputs published" in counts
    assert "dead-lettered" not in done.err
    assert done.err.count("handled\n") == 2, "what a handler prints is no data"
    assert len(billed.lines) == 2
    assert "billing  3" in lag.out


def test_two_versions_are_compared(orders: Project) -> None:
    masks = ["--mask", "order_id", "--mask", "key"]
    orders.write("pyproject.toml", '[tool.protoflow]\nservice = "app:Billing"\n')
    done, same, masked, configured, billed = run(
        orders,
        [*COMPARE, "app:Other"],
        [*COMPARE, "app:Billing", "--json"],
        [*COMPARE, "app:Other", *masks, "--json"],
        [*FROM, "--handler", "shop.v1.Orders.BillOrder", "--shadow", "-n", "1", "--json"],
        ["tail", "orders.billed", "--no-follow"],
    )
    assert done.code == 1
    assert "    output 1 OrderBilled  order_id: A-1 -> a-1" in done.lines
    assert "    status: failed -> done" in done.lines
    assert "3 of 3 messages differ" in done.lines
    assert same.code == 0
    assert json.loads(masked.lines[-1])["different"] == 1, "one failed in one version only"
    assert json.loads(configured.lines[-1])["messages"] == 1
    assert billed.out == ""


def test_mistakes_exit_with_2(orders: Project) -> None:
    billing = [*FROM, "--service", "app:Billing"]
    mistakes = {
        "name the service with --service": FROM,
        "give --shadow --against": [*billing, "--against", "app:Other"],
        "leave out --reprocess": [*billing, "--shadow", "--reprocess"],
        "or an ISO 8601 time": [*billing, "--to", "yesterday", "--shadow"],
        "keeps no log": [*billing, "--transport", "nats://x", "--shadow"],
        "memory:// exists in its process": [*billing, "--transport", "memory://", "--shadow"],
    }
    for text, done in zip(mistakes, run(orders, *mistakes.values()), strict=True):
        assert (done.code, done.out) == (2, ""), done
        assert text in done.err


def test_ctrl_c_ends_the_replay_and_names_the_rest(orders: Project) -> None:
    orders.environ["SLEEP"] = "300"
    running = orders.start(
        *FROM, "--handler", "app:Billing", "--yes", "--concurrency", "1", "--json"
    )
    while not Path(orders.folder, "sleeping").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)  # cancels the run
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["interrupted"] is True
    assert len(summary["left"]) == 1
    assert summary["versions"][0]["done"] == summary["published"] == 1
