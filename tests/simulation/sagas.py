"""A saga over three services: orders are billed, shipped, and announced."""

from __future__ import annotations

import asyncio
from collections import Counter

from google.protobuf.wrappers_pb2 import StringValue
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.output import Output
from protoflow.service.service import Service
from protoflow.testing.simulation import ServiceProcess, Simulation
from protoflow.testing.transports.tasks import publication, task_handler

SAGAS = 36
KEYS = 6
IN_TURN = DeliveryPolicy(
    ordering=Ordering.PER_KEY, concurrency=4, retry=RetryPolicy(max_attempts=3, initial_backoff=0.2)
)
FREE = DeliveryPolicy(
    concurrency=8, retry=RetryPolicy(max_attempts=4, initial_backoff=2.0), timeout=120.0
)


class Bank:
    """Charges each order once, however often it is asked."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}

    async def charge(self, order: str) -> None:
        await asyncio.sleep(0.01)
        self.charged.setdefault(order, 100)


class Mailbox:
    """Counts mails."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()


def billing(process: ServiceProcess) -> Service:
    bank = process.store(Bank)

    async def bill(order: StringValue, context: Context) -> StringValue:
        await bank.charge(order.value)
        return StringValue(value=order.value)

    return process.service(task_handler(bill, "orders", "billing", IN_TURN, "billed"))


def shipping(process: ServiceProcess) -> Service:
    async def ship(order: StringValue, context: Context) -> StringValue:
        await asyncio.sleep(0.02)
        return StringValue(value=order.value)

    return process.service(task_handler(ship, "billed", "shipping", FREE, "shipped"))


def mail(process: ServiceProcess) -> Service:
    mailbox = process.store(Mailbox)

    async def announce(order: StringValue, context: Context) -> None:
        mailbox.sent[order.value] += 1

    return process.service(task_handler(announce, "shipped", "mail", FREE))


async def orders(simulation: Simulation) -> None:
    for number in range(SAGAS):
        output = Output(StringValue(value=f"order-{number}"), key=f"customer-{number % KEYS}")
        await simulation.publisher.publish_outputs(publication("orders"), [output])
        await simulation.sleep(simulation.random() * 1.2)


SERVICES = (billing, shipping, mail)
