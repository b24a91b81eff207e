"""FastAPI: requests publish, and the service runs as long as the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billing import Billing, config
from fastapi import FastAPI
from protoflow import Service
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer

service = Service(config())
service.register(Billing())
events = OrdersEventProducer(service)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with service:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/protoflow", service.asgi_app())


@app.post("/orders", status_code=202)
async def place(order_id: str, cents: int) -> dict[str, str]:
    message_id = await events.publish_order_placed(OrderPlaced(order_id=order_id, cents=cents))
    return {"message": message_id}
