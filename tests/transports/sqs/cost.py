"""What a message costs above aiobotocore: `python -m tests.transports.sqs.cost [COUNT]`.

aiobotocore's clients are replaced by functions that answer at once with what moto has answered, so
all CPU that is left is the transport's and the kit's.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.message import Message, Settlement
from protoflow.testing import Listener
from protoflow.transport import SubscriptionSettings, TransportSettings

METADATA = {
    "ce_type": "shop.v1.OrderPlaced",
    "ce_source": "/shop",
    "ce_time": "2026-01-02T03:04:05.678Z",
    "content-type": "application/protobuf",
    "correlation_id": "c-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


class Clients:
    """Answers as SNS and SQS do."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def publish_batch(self, **parameters: Any) -> dict[str, Any]:
        for each in parameters["PublishBatchRequestEntries"]:
            self.messages.append(
                {
                    "MessageId": f"m-{len(self.messages)}",
                    "ReceiptHandle": f"r-{len(self.messages)}",
                    "Body": each["Message"],
                    "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1"},
                    "MessageAttributes": each["MessageAttributes"],
                }
            )
        return {"Successful": [], "Failed": []}

    async def get_queue_url(self, **parameters: Any) -> dict[str, Any]:
        return {"QueueUrl": parameters["QueueName"]}

    async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {}}

    async def receive_message(self, **parameters: Any) -> dict[str, Any]:
        if parameters["QueueUrl"].endswith("retry") or not self.messages:
            await asyncio.sleep(0.5)
            return {}
        count = parameters["MaxNumberOfMessages"]
        taken = self.messages[-count:]
        del self.messages[-count:]
        return {"Messages": taken}

    async def delete_message_batch(self, **_: Any) -> dict[str, Any]:
        return {"Successful": []}


async def measured(count: int) -> tuple[float, float]:
    """CPU of one message, published and consumed, in microseconds."""
    transport: Any = transports.create(TransportSettings(url=TransportURL.parse("sqs://eu-west-1")))
    clients = Clients()
    transport._connection._clients = {"sns": clients, "sqs": clients, "sts": clients}
    messages = [
        Message(id=f"i-{n}", topic="orders", payload=b"\x08" * 100, key=b"k", metadata=METADATA)
        for n in range(count)
    ]
    started = time.process_time()
    await transport.submit(messages)
    published = time.process_time() - started
    settings = SubscriptionSettings(name="orders/billing", topic="orders", group="billing")
    subscription = await transport.subscribe(settings, Listener())
    left, started = count, time.process_time()
    while left:
        batch = await subscription.receive(10, 1 << 20)
        await subscription.settle([Settlement(delivery) for delivery in batch])
        left -= len(batch)
    consumed = time.process_time() - started
    await transport.close()
    return published / count * 1e6, consumed / count * 1e6


def yardstick() -> float:
    """CPU of `json.dumps` of the metadata, in microseconds: how fast this machine is now."""
    started = time.process_time()
    for _ in range(2000):
        json.dumps(METADATA)
    return (time.process_time() - started) / 2000 * 1e6


async def main(count: int) -> None:
    """Prints the median of five runs."""
    before = yardstick()
    runs = [await measured(count) for _ in range(5)]
    print(f"json.dumps: {(before + yardstick()) / 2:.1f} us")
    for name, values in zip(("published", "consumed"), zip(*runs, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.1f} us a message above aiobotocore")


if __name__ == "__main__":
    asyncio.run(main(int([*sys.argv[1:], "5000"][0])))
