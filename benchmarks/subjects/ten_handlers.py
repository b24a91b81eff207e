"""Ten handlers, each on a topic and in a group of its own: what `protoflow run` starts."""

from __future__ import annotations

import os

from bench.v1.orders_pb2 import Order
from protoflow import Config, Context, Service

run = os.environ["BENCH_RUN"]
service = Service(Config(transport=os.environ["BENCH_URL"]))


async def handler(message: Order, context: Context) -> None:
    """Does nothing."""


for number in range(10):
    topic, group = f"{run}.topic.{number}", f"{run}.handler-{number}"
    service.register_proto_handler(group, topic, Order, handler)
