"""The handler and the settings of all these programs."""

from __future__ import annotations

from protoflow import Config, Context
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersHandler


class Billing(OrdersHandler):
    async def bill_order(self, order: OrderPlaced, context: Context, /) -> None:
        if not order.cents:
            raise ValueError("an order of nothing")
        context.logger.info("billed", extra={"order_id": order.order_id, "cents": order.cents})


def config() -> Config:
    """Returns the settings of the environment; by default, messages are in a SQLite file."""
    return Config(fallback={"transport": "sqlite:///shop.db"})
