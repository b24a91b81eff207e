"""Prometheus: one page with the metrics of all workers, the application's and the runtime's.

PROMETHEUS_MULTIPROC_DIR=metrics protoflow run with_prometheus:service --workers 2 --http 9000
"""

from __future__ import annotations

from billing import config
from prometheus_client import Counter
from protoflow import Context, Service
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersHandler

billed = Counter("shop_billed_cents", "Sum of all bills.")


class Billing(OrdersHandler):
    async def bill_order(self, order: OrderPlaced, context: Context, /) -> None:
        billed.inc(order.cents)


service = Service(config())
service.register(Billing())
