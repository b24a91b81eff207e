"""Publishes to NATS core: `... URL SUBJECT COUNT proto|json MODE`."""

from __future__ import annotations

import asyncio
import sys

import nats

from benchmarks.subjects.messages import event_headers, json_body, json_headers, traceparent
from benchmarks.subjects.prefill import proto_body


async def main(url: str, subject: str, count: str, kind: str, mode: str) -> None:
    """Slower than any subject would measure nothing, faster would drop messages."""
    if kind == "json":
        sent, payload = json_headers(mode), json_body(1)
    else:
        sent = {name.replace("ce_", "ce-"): value for name, value in event_headers().items()}
        sent["ce-datacontenttype"] = sent.pop("content-type")
        sent["traceparent"] = traceparent(mode)
        payload = proto_body(1)
    connection = await nats.connect(url)
    for number in range(int(count)):
        await connection.publish(subject, payload, headers=sent)
        if number % 500 == 0:
            await connection.flush()
            await asyncio.sleep(0.02)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
