"""Bills orders and sends the bills. The broker is what PROTOFLOW_TRANSPORT says."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from protoflow import Config, Context, Service, Unprocessable
from shop.v1.orders_pb2 import OrderBilled, OrderPlaced
from shop.v1.orders_protoflow import MailHandler, OrdersHandler


class Bank(Protocol):
    """Whom the billing asks for the money; a charge that is asked for twice is made once."""

    async def charge(self, order_id: str, cents: int) -> None:
        """Raises when the bank cannot be reached or refuses."""


class KindBank:
    """Takes every charge."""

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
    """Everything from the environment; without a broker, a file."""
    return Config(fallback={"transport": "sqlite:///orders.db"})


def service(settings: Config, bank: Bank) -> Service:
    """The service with its handlers, not yet started."""
    made = Service(settings)
    made.register(Billing(bank), Mailer())
    return made


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)-7s %(name)s: %(message)s")
    asyncio.run(service(config(), KindBank()).run())  # until SIGTERM or SIGINT
