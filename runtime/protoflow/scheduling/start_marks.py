"""Start marks of suspects for transports that keep none."""

from __future__ import annotations

from protoflow.message import Delivery


class NoMarks:
    """An `Isolation` for transports that store no marks, so that no process killer is proved."""

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself, without marks."""
        return None if delivery is None else (delivery, 0)

    async def mark(self, delivery: Delivery) -> None:
        """Writes nothing."""

    async def clear(self, delivery: Delivery) -> None:
        """Removes nothing."""
