"""Names of keys. All keys of one shard of a topic have one hash tag, so they share a slot.

    <prefix>:{<topic>:<shard>}          the stream
    <prefix>:{<topic>:<shard>}:<part>   further data of the shard (see `lua/common.lua`)

Topics and groups contain neither braces nor colons, so all names are distinct.
"""

from __future__ import annotations

import zlib

from protoflow.contract.names import join
from protoflow.message import Message


def stream(prefix: str, topic: str, shard: int) -> str:
    """Returns the key of the stream of one shard of a topic."""
    return f"{prefix}:{{{topic}:{shard}}}"


def retry_topic(topic: str, group: str) -> str:
    """Returns the topic of a group's retries and replays, if the topic itself is not our own."""
    return join(topic, group, "retry")


def record(prefix: str, topic: str) -> str:
    """Returns the key of the hash with the layout of a topic; it is stored with the first shard."""
    return f"{stream(prefix, topic, 0)}:topic"


def waiting(stream: str, group: str) -> str:
    """Returns the key of the sorted set of waiting entries of a group, ordered by due time."""
    return f"{stream}:waiting:{group}"


def shard_of(message: Message, shards: int) -> int:
    """Returns the shard of a message, from a hash of its key, or of its id if it has no key."""
    return zlib.crc32(message.key or message.id.encode()) % shards if shards > 1 else 0
