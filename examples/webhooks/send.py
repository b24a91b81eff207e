"""Sends one payment as a signed CloudEvent."""

import asyncio
import os

import protoflow


async def main() -> None:
    """Sends it; an error means that it was not accepted."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '8080')}/hooks/payments"
    options = {
        "targets": [{"topic": "payments", "url": url, "secrets": os.environ["WEBHOOK_SECRETS"]}],
        "allowed_networks": ["127.0.0.0/8"],  # this machine; public targets need nothing
    }
    async with protoflow.connect("http://", transport_options=options) as publisher:
        payment = {"order_id": "A-7", "cents": 1299}
        print("accepted", await publisher.publish_data("payments", "/shop", payment))


asyncio.run(main())
