"""The waiting messages of a group."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Lag:
    """The number of unsettled messages, and the age of the oldest in seconds."""

    messages: int
    seconds: float | None = None


@runtime_checkable
class LagReader(Protocol):
    """Optional: the lag of a group."""

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the lag of a group."""
        ...
