"""Published messages in the journal: recorded where confirmed messages are counted."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow import wire
from protoflow.journal.entries import Event
from protoflow.journal.journal import Journal
from protoflow.message import Message
from protoflow.stats.handlers import SentMessages

#: A retry or a dead letter has one of these headers; it has its own events.
_HOPS = (wire.PF_DUE, wire.PF_DEAD_LETTER)


class JournaledMessages(SentMessages):
    """Counts and records confirmed messages; only with `journal_successes`.

    Args:
        journal: gets an event for each message.
    """

    __slots__ = ("_record",)

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._record = journal.record_event

    def add(self, messages: Sequence[Message]) -> None:
        """Counts and records confirmed messages."""
        super().add(messages)
        for message in messages:
            metadata = message.metadata
            if any(name in metadata for name in _HOPS):
                continue
            self._record(
                Event.PUBLISHED,
                message.id,
                topic=message.topic,
                type=metadata.get(wire.CE_TYPE, ""),
                cause=metadata.get(wire.CAUSATION_ID, ""),
            )
