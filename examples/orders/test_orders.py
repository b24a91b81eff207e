"""Tests of this example: one handler, the service in virtual time, and simulated faults.

Generate the code first (README.md), then run `pytest test_orders.py`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "gen")]

from protoflow import Service, Unprocessable, testing  # noqa: E402
from protoflow.testing import ServiceProcess, Simulation, invariant, simulate  # noqa: E402
from service import Billing, Mailer  # noqa: E402
from shop.v1.orders_pb2 import OrderBilled, OrderPlaced  # noqa: E402
from shop.v1.orders_protoflow import OrdersEventProducer  # noqa: E402


class FakeBank:
    """Outlives the service, as a bank does. A charge that is requested twice is made once."""

    def __init__(self) -> None:
        self.charged: dict[str, list[int]] = {}

    async def charge(self, order_id: str, cents: int) -> None:
        await asyncio.sleep(0.01)
        self.charged.setdefault(order_id, [cents])


def order(number: int) -> OrderPlaced:
    placed = OrderPlaced(order_id=f"order-{number}", email=f"c{number}@example.org")
    placed.lines.add(sku="lamp", quantity=2, cents=1990)
    return placed


def test_an_order_without_lines_is_refused() -> None:
    empty = OrderPlaced(order_id="order-1")
    with pytest.raises(Unprocessable):
        asyncio.run(Billing(FakeBank()).bill_order(empty, testing.context(empty)))


def test_an_order_is_billed() -> None:
    async def run() -> None:
        async with testing.run(Billing(FakeBank())) as service:
            await OrdersEventProducer(service).publish_order_placed(order(1))
            await service.settled()
            testing.assert_published(service, OrderBilled(order_id="order-1", cents=3980))
            testing.assert_dead_lettered(service)

    asyncio.run(run())


# The simulation builds these services again whenever it restarts their processes.


def billing(process: ServiceProcess) -> Service:
    return process.service(Billing(process.store(FakeBank)))


def mail(process: ServiceProcess) -> Service:
    return process.service(Mailer())


async def orders(simulation: Simulation) -> None:
    producer = OrdersEventProducer(simulation.publisher)
    for number in range(30):
        await producer.publish_order_placed(order(number))
        await simulation.sleep(simulation.random())


@invariant(every_step=True)
def no_order_is_charged_twice(simulation: Simulation) -> None:
    for order_id, charges in simulation.store(FakeBank).charged.items():
        assert len(charges) == 1, f"{order_id} was charged {len(charges)} times"


@pytest.mark.protoflow_seeds(20)
@pytest.mark.parametrize("transport", ["sqlite", "rabbitmq", "jetstream"])
def test_bad_days(transport: str) -> None:
    simulate(billing, mail, scenario=orders, as_=transport, invariants=[no_order_is_charged_twice])


def test_bills_may_be_written_twice() -> None:
    simulate(
        billing, scenario=orders, seeds=2, idempotent=True,
        snapshot=lambda simulation: dict(simulation.store(FakeBank).charged),
    )  # fmt: skip
