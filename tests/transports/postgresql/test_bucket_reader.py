"""Reading on in buckets, over a database that is not there."""

from __future__ import annotations

import asyncio
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from protoflow.message import Delivery
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.bucket_reader import BucketReader
from protoflow.transports.postgresql.positions import Position


async def test_a_bucket_that_is_lost_while_it_is_read_ends_the_read() -> None:
    """Its rows are taken by nobody, so they would be found again and again."""
    bucket = Bucket(3, Position("0", "", 0, 100, 0, 0), (), 0)

    class Rows:
        async def fetch(self, *_: Any) -> list[tuple[object, ...]]:
            await asyncio.sleep(0)
            bucket.lost = True
            return [(3, 1, 0.0, None, "{}", b"", 0.0)]

    reader = BucketReader(
        cast("Any", Rows()),
        cast("Any", SimpleNamespace(group=SimpleNamespace(topic=1, topic_name="t"))),
        {},
        count(),
        lambda _: None,
        lambda _: None,
    )
    found: list[Delivery] = []
    async with asyncio.timeout(5):
        await reader.read([bucket], found, 1, 1000)
    assert not found
