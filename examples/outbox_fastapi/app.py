"""A shop that takes orders by HTTP; stock, orders and messages are in one database.

Run it with `uvicorn app:app`. DATABASE_URL names PostgreSQL, PROTOFLOW_TRANSPORT the broker.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Request
from protoflow import Config, Context, Inbox, Service
from pydantic import BaseModel
from shop.v1.shop_pb2 import OrderPlaced, StockReserved
from shop.v1.shop_protoflow import NoticeHandler, ShopEventProducer, StockHandler

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://postgres@localhost/postgres")
TABLES = """
CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, item text NOT NULL, quantity int NOT NULL);
CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, quantity int NOT NULL);
CREATE TABLE IF NOT EXISTS reservations (order_id text NOT NULL, quantity int NOT NULL);
CREATE TABLE IF NOT EXISTS notices (order_id text NOT NULL);
"""


class Stock(StockHandler):
    def __init__(self, inbox: Inbox[asyncpg.Connection]) -> None:
        self._inbox = inbox

    async def reserve(self, order: OrderPlaced, context: Context, /) -> StockReserved:
        database = self._inbox.of(context)  # the transaction that the runtime commits after the run
        await database.execute(
            "INSERT INTO reservations VALUES ($1, $2)", order.order_id, order.quantity
        )
        left = await database.fetchval(
            "INSERT INTO stock VALUES ($1, 0 - $2::int) ON CONFLICT (item)"
            " DO UPDATE SET quantity = stock.quantity - $2 RETURNING quantity",
            order.item,
            order.quantity,
        )
        return StockReserved(order_id=order.order_id, left=left)


class Notice(NoticeHandler):
    def __init__(self, inbox: Inbox[asyncpg.Connection]) -> None:
        self._inbox = inbox

    async def notify(self, reserved: StockReserved, context: Context, /) -> None:
        await self._inbox.of(context).execute("INSERT INTO notices VALUES ($1)", reserved.order_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(DATABASE_URL, min_size=1, max_size=20) as pool:
        await pool.execute(TABLES)
        inbox = Inbox(pool)
        config = Config(
            fallback={"transport": "jetstream://localhost:4222"},
            outbox=DATABASE_URL,  # the service publishes the messages of this outbox
            handle_signals=False,
        )
        service = Service(config, inbox=inbox)
        service.register(Stock(inbox), Notice(inbox))
        async with service:
            app.state.pool, app.state.events = pool, ShopEventProducer(service)
            app.state.service = service
            yield


app = FastAPI(title="Shop", lifespan=lifespan)


class Order(BaseModel):
    id: str
    item: str
    quantity: int


@app.post("/orders", status_code=201)
async def place(order: Order, request: Request) -> dict[str, bool]:
    """Takes an order. Order and message are committed together, or not at all."""
    state = request.app.state
    async with state.pool.acquire() as connection, connection.transaction():
        status = await connection.execute(
            "INSERT INTO orders VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            order.id,
            order.item,
            order.quantity,
        )
        new = status.endswith(" 1")
        if new:  # a client without an answer may send the order again
            await state.events.publish_order_placed(
                OrderPlaced(order_id=order.id, item=order.item, quantity=order.quantity),
                in_=connection,
            )
    return {"new": new}


@app.get("/readyz")
async def ready(request: Request) -> dict[str, bool]:
    """Returns whether the service is ready."""
    return {"ready": request.app.state.service.health().ready}
