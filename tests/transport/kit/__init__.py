"""Tests of the transport kit, each part by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from protoflow.message import Delivery, Message


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


class Listener:
    """Keeps what a subscription reports."""

    def __init__(self) -> None:
        self.lost: list[Delivery] = []
        self.health: list[tuple[bool, str]] = []

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """No shard of these tests moves."""

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Keeps them."""
        self.lost += deliveries

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Keeps the change."""
        self.health.append((healthy, detail))

    def suspects_waiting(self) -> None:
        """There are none."""
