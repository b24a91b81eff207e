"""Any ASGI application, with or without a lifespan: Django, Quart, Litestar, or this function."""

from __future__ import annotations

from typing import Any

from billing import Billing, config
from protoflow import Service
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer

service = Service(config())
service.register(Billing())
events = OrdersEventProducer(service)


async def shop(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "this application has no lifespan"
    order = OrderPlaced(order_id=scope["path"].strip("/"), cents=1990)
    message_id = await events.publish_order_placed(order)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": message_id.encode()})


app = service.asgi_lifespan(shop)
