"""Claimed entries: converts answers of the scripts to deliveries, and receipts to arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.redis.records import decode, time_of


class Claim(NamedTuple):
    """Identifies one claim of an entry among all claims of this consumer."""

    shard: int
    id: bytes
    deliveries: int


def ids_of(receipts: Iterable[object], shard: int) -> list[bytes]:
    """Returns the ids of the entries of a shard among receipts."""
    return [each.id for each in receipts if isinstance(each, Claim) and each.shard == shard]


def delivery_of(
    topic: str,
    shard: int,
    id: bytes,
    deliveries: int,
    failures: int,
    first_failure: bytes,
    marks: int,
    fields: Sequence[bytes],
) -> Delivery:
    """Returns the delivery of an entry that a script has claimed."""
    position = id.decode()
    message, unreadable = decode(topic, f"{topic}:{shard}:{position}", fields)
    return Delivery(
        message=message,
        failures=failures,
        first_failure=float(first_failure),
        deliveries=deliveries,
        shard=shard,
        position=position,
        time=time_of(position),
        size=sum(map(len, fields)),
        receipt=Claim(shard, id, deliveries),
        suspect=marks > 0,
        unreadable=unreadable,
    )


def action_of(settlement: Settlement, *, ordered: bool) -> bytes:
    """Returns the action for an entry, in the format that the script parses."""
    suffix = b"k" + (settlement.delivery.message.key or b"") if ordered else b""
    if settlement.action is Action.ACK:
        return b"A" + suffix
    released = settlement.action is Action.RELEASE
    return b"N%d %d %r %d %s" % (
        0 if released else math.ceil(settlement.delay * 1000),
        settlement.failures,
        float(settlement.first_failure),
        released,
        suffix,
    )
