"""Publishes what other clients can and ours cannot: header names that are no text.

Run with AIOKAFKA_NO_EXTENSIONS=1, for only the part of aiokafka that is in Python can be misled.
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer
from evil_name import Name  # type: ignore[import-not-found]  # beside this script


async def main(servers: str, topic: str, compression: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        compression_type=None if compression == "none" else compression,
        linger_ms=50,
    )
    await producer.start()
    sent = []
    for number in range(6):
        headers = [("good", b"1")]
        if number % 3 == 1:
            headers.append((Name("evil"), b"v"))
        sent.append(await producer.send(topic, b"%d" % number, b"k", partition=0, headers=headers))
    await asyncio.gather(*sent)
    await producer.stop()


asyncio.run(main(*sys.argv[1:]))
