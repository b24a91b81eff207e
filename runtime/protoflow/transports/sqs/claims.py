"""Received messages as deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from protoflow.message import Delivery
from protoflow.transports.sqs.records import decode

#: Distinguishes the copies of a message in the solo queue, and counts its start marks.
TOKEN: Final = "pf_solo"  # noqa: S105  not a password
MARKS: Final = "pf_marks"
_MOST_DIGITS: Final = 8
#: The attributes of SQS that are requested with each message.
ASKED: Final = ("ApproximateReceiveCount", "SentTimestamp")


class Claim(NamedTuple):
    """How a received message is settled.

    Attributes:
        queue: the queue that it came from.
        handle: the receipt handle.
        token: for a message that runs alone: distinguishes its copies.
        marks: for a message that runs alone: its start marks.
    """

    queue: str
    handle: str
    token: str = ""
    marks: int = 0


def delivery_of(topic: str, queue: str, raw: Mapping[str, Any], *, own: bool) -> Delivery:
    """Returns the delivery of a message.

    Args:
        topic: the topic that its group consumes.
        queue: the queue that it came from.
        raw: as SQS returned it.
        own: whether only members of the group write to this queue.
    """
    message, unreadable, size = decode(topic, raw)
    found: Mapping[str, str] = raw.get("Attributes", {})
    metadata = message.metadata
    token, marks = metadata.get(TOKEN, ""), metadata.get(MARKS, "0")
    if own and token:
        message.metadata = {
            name: text for name, text in metadata.items() if name not in (TOKEN, MARKS)
        }
    else:
        token, marks = "", "0"
    number = int(marks) if marks.isdecimal() and len(marks) <= _MOST_DIGITS else 0
    return Delivery(
        message=message,
        deliveries=int(found.get("ApproximateReceiveCount", 0)),
        position=raw["MessageId"],
        time=int(found.get("SentTimestamp", 0)) / 1000,
        size=size,
        receipt=Claim(queue, raw["ReceiptHandle"], token, number),
        own_place=own,
        suspect=bool(token),
        unreadable=unreadable,
    )
