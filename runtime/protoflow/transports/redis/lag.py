"""The lag of a group."""

from __future__ import annotations

from typing import Any, Final

from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.transport.lag import Lag
from protoflow.transports.redis import names
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.records import time_of
from protoflow.transports.redis.topic_reader import order, page
from protoflow.transports.redis.topics import Topics

#: The most entries that are counted if the server does not know the number.
_COUNTED: Final = 100_000
_PAGE: Final = 5_000


async def read_lag(connection: RedisConnection, topics: Topics, topic: str, group: str) -> Lag:
    """See `LagReader.lag`. Counts entries that wait, are held, or were never delivered."""
    messages, oldest = 0, list[bytes]()
    for stream, name in await topics.places(topic, group):
        info = (await topics.groups(stream)).get(name)
        if info is None:
            raise TopologyError(
                f"group {name} of topic {topic} does not exist", code=TOPOLOGY_MISSING
            )
        delivered = info["last-delivered-id"]
        waiting = names.waiting(stream, name)
        messages += int(info["pending"]) + int(await connection.command("ZCARD", waiting))
        messages += await _undelivered(connection, stream, info)
        pending = await connection.command("XPENDING", stream, name, "-", "+", 1)
        oldest += [each[0] for each in pending]
        oldest += await connection.command("ZRANGE", waiting, 0, 999)
        oldest += [each[0] for each in await page(connection, stream, b"(" + delivered, count=1)]
    if not oldest:
        return Lag(messages=messages)
    first = time_of(min(oldest, key=order).decode())
    return Lag(messages=messages, seconds=max(0.0, connection.settings.clock.now() - first))


async def _undelivered(connection: RedisConnection, stream: str, info: dict[str, Any]) -> int:
    if info.get("lag") is not None:
        return int(info["lag"])
    place, count = b"(" + info["last-delivered-id"], 0
    while count < _COUNTED:
        found = await page(connection, stream, place, count=_PAGE)
        count += len(found)
        if len(found) < _PAGE:
            break
        place = b"(" + found[-1][0]
    return count
