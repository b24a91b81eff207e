"""Names of keys: all that belongs to one shard of a topic has one hash tag, so one slot.

    <prefix>:{<topic>:<shard>}          the stream
    <prefix>:{<topic>:<shard>}:<part>   what is kept beside it (see `lua/common.lua`)

Topics and groups have neither braces nor colons, so no two names ever become one.
"""

from __future__ import annotations

import zlib

from protoflow.message import Message


def stream(prefix: str, topic: str, shard: int) -> str:
    """The stream of one shard of a topic."""
    return f"{prefix}:{{{topic}:{shard}}}"


def record(prefix: str, topic: str) -> str:
    """The hash that says how a topic is made; it lies with the first shard."""
    return f"{stream(prefix, topic, 0)}:topic"


def waiting(stream: str, group: str) -> str:
    """The sorted set of what waits for a group, by the time when it is due."""
    return f"{stream}:waiting:{group}"


def shard_of(message: Message, shards: int) -> int:
    """The shard of a message: by its key, else spread by its id."""
    return zlib.crc32(message.key or message.id.encode()) % shards if shards > 1 else 0
