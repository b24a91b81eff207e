"""What a journal holds: events of messages, minutes of handlers, actions of operators."""

from __future__ import annotations

import enum

from protoflow.dataclass_record import dataclass_record
from protoflow.stats.handlers import COUNTERS


class Event(enum.StrEnum):
    """What happened to a message."""

    #: Confirmed by the broker; recorded with `journal_successes`.
    PUBLISHED = "published"
    #: A run began; recorded with `journal_successes`.
    RECEIVED = "received"
    #: The handler returned; recorded with `journal_successes`.
    HANDLED = "handled"
    #: The handler raised Skip; recorded with `journal_successes`.
    SKIPPED = "skipped"
    #: A run failed, or the message could not be handled at all.
    FAILED = "failed"
    #: Given up and acknowledged, as `on_exhausted` or the transport says.
    DROPPED = "dropped"
    #: The broker confirmed the dead letter.
    DEAD_LETTERED = "dead-lettered"
    #: An operator gave the dead letter back.
    REPLAYED = "replayed"
    #: An operator deleted the dead letter.
    PURGED = "purged"


@dataclass_record
class MessageEvent:
    """What happened to a message, and where.

    Attributes:
        time: in seconds since the epoch.
        id: the message id.
        event: what happened.
        handler: the full name of the handler, if a handler was involved.
        topic: the topic that it was consumed from, published to, or dead-lettered to.
        group: the consumer group.
        attempt: the number of the run; 0 where nothing ran.
        type: the full name of the message's type, of published ones.
        error: the type and the text of the error, without sensitive values.
        detail: what followed, or who acted.
        cause: of a published one, the id of the message whose handler published it.
    """

    time: float
    id: str
    event: Event
    handler: str = ""
    topic: str = ""
    group: str = ""
    attempt: int = 0
    type: str = ""
    error: str = ""
    detail: str = ""
    cause: str = ""


@dataclass_record
class HandlerMinute:
    """What a handler did in a minute, in all processes that write the journal.

    Attributes:
        minute: when it began, in seconds since the epoch.
        handler: the full name of the handler.
        counts: the counters of `HandlerStats` by name.
        runs: how many runs ended.
        seconds: how long they took together.
    """

    minute: int
    handler: str
    counts: dict[str, int]
    runs: int
    seconds: float


@dataclass_record
class OperatorAction:
    """What an operator did.

    Attributes:
        time: in seconds since the epoch.
        action: replay, purge, pause, resume, drain.
        target: what was acted on: a dead-letter topic, a subscription, a handler.
        count: how many messages it concerned.
        actor: who acted: a user of the command, or the name of a service.
        detail: how it was done.
    """

    time: float
    action: str
    target: str
    count: int
    actor: str
    detail: str


#: The action under which a journal notes how many entries it could not keep.
GAP = "gap"

#: The columns of an event, in the order of its row.
EVENT_COLUMNS = (
    *("time", "id", "event", "handler", "topic", "grp", "attempt", "type", "error", "detail"),
    "cause",
)
#: The columns of a minute that are added up.
MINUTE_COLUMNS = (*COUNTERS, "runs", "seconds")
ACTION_COLUMNS = ("time", "action", "target", "count", "actor", "detail")
