"""A message of a replay, and the result of each version of the handler."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from protoflow import wire
from protoflow.message import Message
from protoflow.transport.topic_reader import TopicRecord


class Status(enum.StrEnum):
    """What became of a message in one version of the handler."""

    DONE = "done"
    #: The handler or a middleware skipped it, for example because an inbox has recorded it.
    SKIPPED = "skipped"
    FAILED = "failed"
    #: The handler does not take its type, or it is a tombstone.
    UNHANDLED = "unhandled"
    #: The replay ended before.
    NOT_RUN = "not run"


@dataclass(slots=True)
class Result:
    """The result of one run.

    Attributes:
        status: the outcome.
        outputs: the captured outputs, in order; empty if they were published.
        error_class: the class of the cause, as in a dead letter: decode, exhausted, validation...
        error_type: the type of the exception.
        error_text: the text of the exception, without sensitive fields; for a skipped message the
            reason.
    """

    status: Status
    outputs: list[Message] = field(default_factory=list)
    error_class: str = ""
    error_type: str = ""
    error_text: str = ""

    def fail(self, dead_letter: Message) -> None:
        """Takes the failure over from the dead letter that the runtime made."""
        metadata = dead_letter.metadata
        self.status = Status.FAILED
        self.error_class = metadata.get(wire.PF_ERROR_CLASS, "")
        self.error_type = metadata.get(wire.PF_ERROR_TYPE, "")
        self.error_text = metadata.get(wire.PF_ERROR_MESSAGE, "")

    @property
    def error(self) -> str:
        """The error on one line."""
        return f"{self.error_type}: {self.error_text}" if self.error_text else self.error_type


@dataclass(slots=True, eq=False)
class Entry:
    """A message of the topic, with one result for each version of the handler.

    Attributes:
        record: the message.
        results: the results; None until a version has settled the message.
        size: bytes of the message and of the captured outputs.
    """

    record: TopicRecord
    results: list[Result | None]
    size: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether every version has settled the message."""
        return None not in self.results


@dataclass(slots=True, eq=False)
class Ticket:
    """The receipt of a delivery.

    Attributes:
        entry: the message.
        version: the index of the version of the handler.
        failed: called when the run has failed, before it is settled.
        result: the result so far; UNHANDLED until the handler has run.
    """

    entry: Entry
    version: int
    failed: Callable[[], None]
    result: Result = field(default_factory=lambda: Result(Status.UNHANDLED))


def size_of(message: Message) -> int:
    """Returns the bytes of payload, key and metadata."""
    texts = sum(len(name) + len(value) for name, value in message.metadata.items())
    return len(message.payload or b"") + len(message.key or b"") + texts
