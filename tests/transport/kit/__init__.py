"""Tests of the transport kit, each part by itself."""

from __future__ import annotations

from typing import Any

from protoflow.message import Delivery, Message
from protoflow.testing import Listener as Listener


def make_delivery(
    number: int,
    *,
    size: int = 1,
    shard: str | int = 0,
    key: bytes | None = None,
    receipt: Any = None,  # Any: as `Delivery.receipt`
) -> Delivery:
    """A delivery whose position, receipt and id are its number."""
    return Delivery(
        message=Message(id=str(number), topic="orders", payload=b"", key=key),
        position=number,
        size=size,
        shard=shard,
        receipt=number if receipt is None else receipt,
    )
