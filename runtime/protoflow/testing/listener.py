"""A subscription listener that records what the subscription reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from protoflow.message import Delivery


class Listener:
    """Implements `SubscriptionListener` and keeps every report.

    Attributes:
        lost: the deliveries whose leases were lost.
        revoked: an entry for each revocation: the shards that moved away, and the seconds in
            which their handlers must finish.
        health: every change of health, with its detail.
        suspects: the number of reports that suspects wait.
        on_revoke: awaited before shards move away; None: nothing is.
    """

    def __init__(self, on_revoke: Callable[[], Awaitable[object]] | None = None) -> None:
        self.lost: list[Delivery] = []
        self.revoked: list[tuple[set[str | int], float]] = []
        self.health: list[tuple[bool, str]] = []
        self.suspects = 0
        self.on_revoke = on_revoke

    @property
    def healthy(self) -> list[bool]:
        """The changes of health without their details."""
        return [healthy for healthy, _ in self.health]

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Records the revocation and awaits `on_revoke`."""
        self.revoked.append((set(shards), drain))
        if self.on_revoke is not None:
            await self.on_revoke()

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Records the deliveries."""
        self.lost += deliveries

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Records the change."""
        self.health.append((healthy, detail))

    def suspects_waiting(self) -> None:
        """Counts the report."""
        self.suspects += 1
