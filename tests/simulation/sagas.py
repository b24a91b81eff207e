"""A saga over three services: orders are billed, shipped, and announced in batches.

The handlers have habits of users' handlers: one cancels its own task, a callback on confirmation
raises, and a batch has an output that names no input.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue
from protoflow.context import Context
from protoflow.contract.spec import BatchPolicy, DeliveryPolicy, Ordering, RetryPolicy
from protoflow.handler import Batch
from protoflow.message import Message
from protoflow.output import Output
from protoflow.service.service import Service
from protoflow.testing import invariant
from protoflow.testing.simulation import ServiceProcess, Simulation
from protoflow.testing.transports.tasks import publication, task_handler

SAGAS = 34
KEYS = 6
#: Orders whose first run cancels its own task.
CANCELLED = sum(str(number).endswith("5") for number in range(SAGAS))
IN_TURN = DeliveryPolicy(
    ordering=Ordering.PER_KEY, concurrency=4, retry=RetryPolicy(max_attempts=3, initial_backoff=0.2)
)
FREE = DeliveryPolicy(
    concurrency=8, retry=RetryPolicy(max_attempts=4, initial_backoff=2.0), timeout=120.0
)
BATCHES = BatchPolicy(max_messages=5, max_wait=1.0)


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


class Courier:
    """Is notified of shipments, and hangs up now and then."""

    def notify(self, order: str) -> None:
        if order.endswith("7"):
            raise ConnectionError(f"nobody answers for {order}")


async def gives_up() -> None:
    """A timeout made at home: it cancels the task in which it runs."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1.0)


def billing(process: ServiceProcess) -> Service:
    bank = process.store(Bank)

    async def bill(order: StringValue, context: Context) -> StringValue:
        await bank.charge(order.value)
        return StringValue(value=order.value)

    return process.service(task_handler(bill, "orders", "billing", IN_TURN, "billed"))


def shipping(process: ServiceProcess) -> Service:
    courier = process.store(Courier)

    async def ship(order: StringValue, context: Context) -> StringValue:
        await asyncio.sleep(0.02)
        if order.value.endswith("5") and context.attempt == 1:
            await gives_up()
        context.on_confirmed(partial(courier.notify, order.value))
        return StringValue(value=order.value)

    return process.service(task_handler(ship, "billed", "shipping", FREE, "shipped"))


def mail(process: ServiceProcess) -> Service:
    mailbox = process.store(Mailbox)

    async def announce(orders: Batch[StringValue], context: Context) -> StringValue:
        await asyncio.sleep(0.02)
        mailbox.sent.update(order.value for order in orders)
        return StringValue(value=f"{len(orders)} mails")

    return process.service(task_handler(announce, "shipped", "mail", FREE, "mailed", BATCHES))


async def orders(simulation: Simulation) -> None:
    """Steady traffic, or bursts: half of the seeds each."""
    burst = 1 if simulation.random() < 0.5 else 2 + int(simulation.random() * KEYS)
    for number in range(SAGAS):
        output = Output(StringValue(value=f"order-{number}"), key=f"customer-{number % KEYS}")
        await simulation.publisher.publish_outputs(publication("orders"), [output])
        if number % burst == 0:
            await simulation.sleep(simulation.random() * 1.2 * burst)


@invariant(every_step=True)
def no_order_is_charged_twice(simulation: Simulation) -> None:
    for order, cents in simulation.store(Bank).charged.items():
        assert cents == 100, f"{order} was charged {cents} cents"


@invariant
def every_charged_order_is_announced(simulation: Simulation) -> None:
    gone = {order_of(message) for message in simulation.dead_letters}
    for order in simulation.store(Bank).charged:
        assert order in gone or simulation.store(Mailbox).sent[order], f"{order} was not announced"


def order_of(message: Message) -> str:
    """Returns the order of a dead letter; empty is none."""
    try:
        return StringValue.FromString(message.payload or b"").value
    except DecodeError:
        return ""


SERVICES = (billing, shipping, mail)
INVARIANTS = (no_order_is_charged_twice, every_charged_order_is_announced)
