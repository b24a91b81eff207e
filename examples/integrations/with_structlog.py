"""structlog: your records and the runtime's have one format, and name the message."""

from __future__ import annotations

import asyncio
import logging

import structlog
from billing import config
from protoflow import Context, Delivery, Outcome, Service
from protoflow.pipeline import HandlerSpec, Next
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersHandler
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

shared: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
]
structlog.configure(
    processors=[*shared, ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
handler = logging.StreamHandler()
handler.setFormatter(
    ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
)
logging.basicConfig(level=logging.INFO, handlers=[handler])
log = structlog.get_logger()


class Billing(OrdersHandler):
    async def bill_order(self, order: OrderPlaced, context: Context, /) -> None:
        log.info("billed", order_id=order.order_id)


def bound(next: Next, spec: HandlerSpec) -> Next:
    async def run(delivery: Delivery, context: Context) -> Outcome:
        with structlog.contextvars.bound_contextvars(handler=spec.name, message_id=context.id):
            return await next(delivery, context)

    return run


service = Service(config(), middleware=[bound])
service.register(Billing())

if __name__ == "__main__":
    asyncio.run(service.run())
