"""The orders example from .proto to replayed dead letters, on SQLite: `make demo`.

It generates the code with protoc, runs the service and publishes orders, of which some fail once,
some always fail, and some are invalid. Then it removes the cause and replays the dead letters. It
exits with 0 only if every message is accounted for. PROTOFLOW_TRANSPORT selects another broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import protoflow
from protoflow.dead_letters import DeadLetterFilter

HERE = Path(__file__).resolve().parent
GEN = HERE / "gen"
ORDERS = 300
PATIENCE = 60.0


def generate() -> None:
    """Generates the code with protoc, as the README describes."""
    bin_directory = Path(sys.executable).parent
    plugin = bin_directory / "protoc-gen-protoflow"
    include = subprocess.run([plugin, "--include"], capture_output=True, text=True, check=True)
    GEN.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "grpc_tools.protoc"]
    command += [f"--plugin=protoc-gen-protoflow={plugin}", f"-I{HERE / 'proto'}"]
    command += [f"-I{include.stdout.strip()}", f"--python_out={GEN}", f"--pyi_out={GEN}"]
    subprocess.run([*command, f"--protoflow_out={GEN}", "shop/v1/orders.proto"], check=True)
    for file in sorted(GEN.rglob("*_p*.py*")):
        if file.suffix in (".py", ".pyi"):
            print(f"  gen/{file.relative_to(GEN)}  {len(file.read_text().splitlines())} lines")


class MoodyBank:
    """Does not answer first charges of some orders, and refuses others until reopened."""

    def __init__(self) -> None:
        self.reopened = False
        self.charged: Counter[str] = Counter()
        self._asked: set[str] = set()

    async def charge(self, order_id: str, cents: int) -> None:
        await asyncio.sleep(0.001)
        mood = int(order_id.removeprefix("order-")) % 10
        if mood == 1 and order_id not in self._asked:
            self._asked.add(order_id)
            raise ConnectionError("the bank does not answer")
        if mood == 2 and not self.reopened:
            raise RuntimeError("the bank closed our account")
        self.charged[order_id] += 1


class Expectations:
    """Compares counts with the expected counts, and remembers whether all were equal."""

    def __init__(self) -> None:
        self.met = True

    def row(self, what: str, found: int, expected: int) -> None:
        self.met &= found == expected
        problem = "" if found == expected else f"   EXPECTED {expected}"
        print(f"  {what:<52}{found:>5}{problem}")


async def run(url: str) -> bool:
    """Runs the demo; returns whether every count was as expected."""
    # Imported here, because the code was generated just now.
    from service import service
    from shop.v1.orders_pb2 import OrderPlaced
    from shop.v1.orders_protoflow import OrdersEventProducer

    def order(number: int) -> OrderPlaced:
        placed = OrderPlaced(order_id=f"order-{number}", email=f"c{number}@example.org")
        if number % 10 != 3:  # orders without lines are invalid
            placed.lines.add(sku="lamp", quantity=1, cents=1990)
        return placed

    bank, check = MoodyBank(), Expectations()
    running = service(protoflow.Config(transport=url), bank)
    async with running:
        print(f"\nThe service runs on {running.config.url.safe}")
        started = time.monotonic()
        async with protoflow.connect(url) as publisher:
            producer = OrdersEventProducer(publisher)
            ids = await producer.publish_order_placed_many(map(order, range(ORDERS)))
        print(f"Published {len(ids)} orders; each tenth fails once, always, or is invalid")

        await settled(running, billed=ORDERS * 8 // 10, dead=ORDERS // 5)
        print(f"All settled after {time.monotonic() - started:.1f} s:")
        billing, mail = running.stats().values()
        check.row("orders billed", billing.handled, ORDERS * 8 // 10)
        check.row("runs that failed and were repeated", billing.retried, ORDERS // 10 * 3)
        check.row("orders dead-lettered", billing.dead_lettered, ORDERS // 5)
        check.row("bills mailed", mail.handled, ORDERS * 8 // 10)

        dead_letters = running.dead_letters
        topic = next(topic for topic in dead_letters.topics if topic.endswith("..billing..dead"))
        records = await dead_letters.list(topic, limit=ORDERS)
        print(f"Dead letters in {topic}:")
        causes = Counter(cause(record.message.metadata) for record in records)
        check.met &= len(causes) == 2
        for text, count in sorted(causes.items()):
            check.row(text, count, ORDERS // 10)

        bank.reopened = True
        exhausted = DeadLetterFilter(error_class="exhausted")
        replayed = await dead_letters.replay(topic, filter=exhausted)
        print("The account is open again; its dead letters were replayed:")
        await settled(running, billed=ORDERS * 9 // 10, dead=ORDERS // 5)
        check.row("dead letters replayed", replayed, ORDERS // 10)
        check.row("orders billed in all", billing.handled, ORDERS * 9 // 10)
        check.row("orders charged more than once", sum(n > 1 for n in bank.charged.values()), 0)
        check.row("bills mailed in all", mail.handled, ORDERS * 9 // 10)
        left = await dead_letters.count(topic)
        check.row("dead letters left: the invalid orders", left, ORDERS // 10)
    return check.met


async def settled(running: protoflow.Service, *, billed: int, dead: int) -> None:
    """Waits until every message was handled or dead-lettered, or the time is up."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        billing, mail = running.stats().values()
        done = billing.handled >= billed and billing.dead_lettered >= dead
        if done and mail.handled >= billed and all(s.settled for s in running.subscriptions):
            return
        await asyncio.sleep(0.02)
    counts = {name: stats.as_dict() for name, stats in running.stats().items()}
    print(f"  not settled after {PATIENCE:.0f} s: {counts}")


def cause(metadata: Mapping[str, str]) -> str:
    """Returns the cause of a dead letter in one line."""
    attempts, error = metadata["pf_attempt"], metadata["pf_error_type"]
    runs = "1 run" if attempts == "1" else f"{attempts} runs"
    return f"{error}: {metadata['pf_error_message']} ({runs})"


def main() -> int:
    print("Generated from proto/shop/v1/orders.proto:")
    generate()
    sys.path[:0] = [str(GEN), str(HERE)]
    if sys.argv[1:] == ["dashboard"]:
        import dashboard

        dashboard.main()
        return 0
    # do not log the 60 expected dead letters
    logging.getLogger("protoflow").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="orders-") as directory:
        url = os.environ.get("PROTOFLOW_TRANSPORT", f"sqlite:///{directory}/orders.db")
        met = asyncio.run(run(url))
    print("\nEvery order is accounted for." if met else "\nNOT AS EXPECTED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
