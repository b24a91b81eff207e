"""The last messages of this process, kept so that they need not be read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protoflow.message import Delivery, Message
from protoflow.transports.sqlite.schema import POSITION

_MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_MESSAGES: Final = 16 * 1024
#: After this many claims without a hit, the kept messages are dropped.
_PATIENCE: Final = 8


class Recent:
    """First deliveries by sequence, each handed out once; used in the thread only.

    A miss only costs a read from the file. So messages are kept briefly, and all are dropped if a
    transaction fails.

    Attributes:
        topics: the topics that this process consumes; other messages are not kept.
    """

    def __init__(self) -> None:
        self.topics: frozenset[str] = frozenset()
        self._deliveries: dict[int, Delivery] = {}
        self._bytes = 0
        self._misses = 0

    def add(
        self, first: int, messages: Sequence[Message], times: Sequence[float], sizes: Sequence[int]
    ) -> None:
        """Keeps stored messages from this sequence on, if there is room."""
        total = sum(sizes)
        if self._misses > _PATIENCE:
            self.clear()
        if (
            self._bytes + total > _MAX_BYTES
            or len(self._deliveries) + len(messages) > _MAX_MESSAGES
        ):
            return
        self._bytes += total
        deliveries = self._deliveries
        sequences = range(first, first + len(messages))
        for sequence, message, time, size in zip(sequences, messages, times, sizes, strict=True):
            deliveries[sequence] = Delivery(
                message=Message(
                    id=message.id,
                    topic=message.topic,
                    payload=message.payload,
                    key=message.key,
                    metadata=dict(message.metadata),
                ),
                deliveries=1,
                position=sequence & POSITION,
                time=time,
                size=size,
                receipt=sequence,
            )

    def take(self, first: int, last: int) -> list[Delivery] | None:
        """Returns all messages of a range of sequences, or None if one is missing."""
        pop = self._deliveries.pop
        if first not in self._deliveries or last not in self._deliveries:
            self._misses += bool(self._deliveries)
            return None
        taken = [delivery for at in range(first, last + 1) if (delivery := pop(at, None))]
        self._bytes -= sum(delivery.size for delivery in taken)
        self._misses = 0
        return taken if len(taken) == last - first + 1 else None

    def clear(self) -> None:
        """Forgets everything."""
        self._deliveries.clear()
        self._bytes = self._misses = 0
