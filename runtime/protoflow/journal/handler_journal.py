"""The journal of one handler; its names are bound once."""

from __future__ import annotations

import functools

from protoflow import wire
from protoflow.journal.entries import Event
from protoflow.journal.journal import Journal
from protoflow.message import Message


class HandlerJournal:
    """Records the outcomes of a handler's messages.

    Args:
        journal: the journal of the process.
        handler: the full name.
        group: the consumer group.

    Attributes:
        successes: whether receipts and successes are also recorded.
    """

    def __init__(self, journal: Journal, handler: str, group: str) -> None:
        self.successes = journal.successes
        self._record = functools.partial(journal.record_event, handler=handler, group=group)

    def received(self, message: Message, attempt: int) -> None:
        """Records the begin of a run."""
        cause = message.metadata.get(wire.CAUSATION_ID, "")
        self._record(Event.RECEIVED, message.id, topic=message.topic, attempt=attempt, cause=cause)

    def handled(self, message: Message, attempt: int) -> None:
        """Records that the handler returned."""
        self._record(Event.HANDLED, message.id, topic=message.topic, attempt=attempt)

    def skipped(self, message: Message, attempt: int) -> None:
        """Records that the handler skipped the message."""
        self._record(Event.SKIPPED, message.id, topic=message.topic, attempt=attempt)

    def failed(self, message: Message, attempt: int, error: str, *, what: str) -> None:
        """Records a failed run or an invalid message; `what` is the consequence."""
        event = Event.DROPPED if what == "dropped" else Event.FAILED
        detail = what.removeprefix("failed, ")
        self._record(
            event, message.id, topic=message.topic, attempt=attempt, error=error, detail=detail
        )

    def dead_lettered(self, message: Message, attempt: int, topic: str) -> None:
        """Records that the dead letter is confirmed."""
        self._record(Event.DEAD_LETTERED, message.id, topic=topic, attempt=attempt)
