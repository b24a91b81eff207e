"""Messages as the JetStream API returns them from a stream (`STREAM.MSG.GET`)."""

from __future__ import annotations

import base64
import datetime

from protoflow.message import Message
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.wire import headers
from protoflow.transports.nats.wire.client import FastClient


def message_of(topic: str, stream: str, stored: JSON) -> Message:
    """Returns the message. If its headers cannot be read, only the payload is in it."""
    payload = base64.b64decode(stored.get("data", ""))
    try:
        message = headers.decode(topic, payload, base64.b64decode(stored.get("hdrs", "")))
    except Exception:  # one message that cannot be read does not hide the others
        message = Message(id="", topic=topic, payload=payload)
    message.id = message.id or f"{stream}:{stored['seq']}"
    return message


def time_of(stored: JSON) -> float:
    """Returns when the server stored it, in seconds since the epoch; 0.0 if it does not say.

    The form is `2026-01-02T03:04:05.123456789Z`.
    """
    whole, _, fraction = str(stored.get("time", "")).removesuffix("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0.0
    return moment.timestamp() + float(f"0.{fraction or 0}")


async def sequence_at(
    api: API, client: FastClient, stream: str, filter: str, time: float, bounds: tuple[int, int]
) -> int:
    """Returns the sequence of the first message at or after a time, by halves."""
    first, last = bounds
    while first <= last:
        middle = (first + last) // 2
        stored = await api.next_message(client, stream, middle, filter)
        if stored is None or time_of(stored) >= time:
            last = middle - 1
        else:
            first = stored["seq"] + 1
    return first
