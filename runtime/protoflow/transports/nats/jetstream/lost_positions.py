"""Lost positions: messages that left the stream before their group read them.

Sequences show it: the first one in the stream lies behind the last one that was lent.
Streams with several shards are not judged, for sequences between belong to other shards; nor is a
gap that ends at a message which was delayed, for its schedule left the stream with it.
"""

from __future__ import annotations

import base64

from nats.aio.client import Client

from protoflow.transports.nats.jetstream.api import API, JSON

_LIMITS = ("max_age", "max_bytes", "max_msgs", "max_msgs_per_subject")
_FROM_A_SCHEDULE = b"\r\nNats-Scheduler:"


async def missed(api: API, client: Client, stream: str, durable: str) -> int:
    """How many places of a limited stream were emptied before a group came to them. Raises
    TransportError: it is not known now."""
    info = await api.stream(client, stream)
    if info is None or not _drops(info["config"]):
        return 0
    found = await api.consumer(client, stream, durable)
    if found is None:
        return 0
    subject = found["config"].get("filter_subject", "")
    if any(other != subject and ".=wait." not in other for other in info["config"]["subjects"]):
        return 0
    read = max(found["delivered"]["stream_seq"], found["ack_floor"]["stream_seq"])
    places = int(info["state"]["first_seq"]) - 1 - int(read)
    if places <= 0:
        return 0
    next_one = await api.next_message(client, stream, read + 1, subject)
    headers = base64.b64decode(next_one.get("hdrs", "")) if next_one is not None else b""
    return 0 if _FROM_A_SCHEDULE in headers else places


def _drops(config: JSON) -> bool:
    return any((config.get(limit) or 0) > 0 for limit in _LIMITS)
