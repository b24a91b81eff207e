"""Bills orders and sends the bills. PROTOFLOW_TRANSPORT names the broker."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from protoflow import Config, Context, Service, Unprocessable
from shop.v1.orders_pb2 import OrderBilled, OrderPlaced
from shop.v1.orders_protoflow import MailHandler, OrdersHandler


class Bank(Protocol):
    """The bank that charges customers. A charge that is requested twice is made once."""

    async def charge(self, order_id: str, cents: int) -> None:
        """Charges an order; raises if the bank does not answer or refuses."""


class KindBank:
    """Accepts every charge."""

    async def charge(self, order_id: str, cents: int) -> None:
        await asyncio.sleep(0.01)


class Billing(OrdersHandler):
    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def bill_order(self, order: OrderPlaced, context: Context, /) -> OrderBilled:
        if not order.lines:
            raise Unprocessable("an order without lines")
        cents = sum(line.quantity * line.cents for line in order.lines)
        await self._bank.charge(order.order_id, cents)
        return OrderBilled(order_id=order.order_id, cents=cents)


class Mailer(MailHandler):
    async def send_bill(self, bill: OrderBilled, context: Context, /) -> None:
        context.logger.info("order %s: a bill of %d cents", bill.order_id, bill.cents)


def config() -> Config:
    """Returns the configuration from the environment; the default transport is a SQLite file."""
    return Config(fallback={"transport": "sqlite:///orders.db"})


def service(settings: Config, bank: Bank) -> Service:
    """Returns the service with its handlers; it is not started."""
    made = Service(settings)
    made.register(Billing(bank), Mailer())
    return made


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)-7s %(name)s: %(message)s")
    asyncio.run(service(config(), KindBank()).run())  # until SIGTERM or SIGINT
