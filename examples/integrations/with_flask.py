"""Flask: views publish without an event loop, from any thread and in any worker process."""

from __future__ import annotations

import protoflow
from billing import config
from flask import Flask
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducerSync

app = Flask(__name__)
# It connects when the first view publishes: after gunicorn or uWSGI have forked.
events = OrdersEventProducerSync(protoflow.connect_sync(transport=config().transport))


@app.post("/orders/<order_id>")
def place(order_id: str) -> tuple[dict[str, str], int]:
    order = OrderPlaced(order_id=order_id, cents=1990)
    return {"message": events.publish_order_placed(order)}, 202
