"""Receives payments as signed webhooks, and stores each one before it answers."""

import asyncio
import os
from dataclasses import dataclass

from protoflow import Config, Context, Service


@dataclass
class Payment:
    """The JSON body of a webhook."""

    order_id: str
    cents: int


async def book(payment: Payment, context: Context) -> None:
    """Handles one payment."""
    print(f"order {payment.order_id}: {payment.cents} cents, message {context.id}", flush=True)


service = Service(
    Config(
        transport=f"http://127.0.0.1:{os.environ.get('PORT', '8080')}/hooks",
        transport_options={
            "secrets": os.environ["WEBHOOK_SECRETS"],  # several during a rotation: a,b
            "hand_off": "sqlite:///inbox.db",
        },
    )
)
service.register_json_handler("book", "payments", book, type=Payment)

if __name__ == "__main__":
    asyncio.run(service.run())
