"""The entries of a journal: message events, minutes of handlers, operator actions."""

from __future__ import annotations

import enum

from protoflow.dataclass_record import dataclass_record
from protoflow.stats.handlers import COUNTERS


class Event(enum.StrEnum):
    """The kinds of message events."""

    #: Confirmed by the broker; recorded with `journal_successes`.
    PUBLISHED = "published"
    #: A run has begun; recorded with `journal_successes`.
    RECEIVED = "received"
    #: The handler returned; recorded with `journal_successes`.
    HANDLED = "handled"
    #: The handler raised Skip; recorded with `journal_successes`.
    SKIPPED = "skipped"
    #: A run failed, or the message could not be handled.
    FAILED = "failed"
    #: The message was given up and acknowledged, as `on_exhausted` or the transport requires.
    DROPPED = "dropped"
    #: The broker confirmed the dead letter.
    DEAD_LETTERED = "dead-lettered"
    #: An operator replayed the dead letter.
    REPLAYED = "replayed"
    #: An operator deleted the dead letter.
    PURGED = "purged"


@dataclass_record
class MessageEvent:
    """An event of a message, with its location.

    Attributes:
        time: in seconds since the epoch.
        id: the message id.
        event: the kind of event.
        handler: the full name of the handler, if a handler was involved.
        topic: the topic that it was consumed from, published to or dead-lettered to.
        group: the consumer group.
        attempt: the number of the run; 0 if there was no run.
        type: for publishes, the full name of the message's type.
        error: the type and the text of the error, without sensitive values.
        detail: the consequence, or the operator.
        cause: for publishes, the id of the message whose handler published it.
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
    """The activity of a handler in one minute, in all processes that write the journal.

    Attributes:
        minute: the start of the minute, in seconds since the epoch.
        handler: the full name of the handler.
        counts: the counters of `HandlerStats` by name.
        runs: the number of runs that ended.
        seconds: the total time of these runs.
    """

    minute: int
    handler: str
    counts: dict[str, int]
    runs: int
    seconds: float


@dataclass_record
class OperatorAction:
    """An action of an operator.

    Attributes:
        time: in seconds since the epoch.
        action: replay, purge, pause, resume, drain.
        target: the object of the action: a dead-letter topic, a subscription or a handler.
        count: the number of affected messages.
        actor: a user of the command, or the name of a service.
        detail: further details of the action.
    """

    time: float
    action: str
    target: str
    count: int
    actor: str
    detail: str


#: A journal uses this action to record how many entries were lost.
GAP = "gap"

#: The columns of an event, in the order of the row.
EVENT_COLUMNS = (
    *("time", "id", "event", "handler", "topic", "grp", "attempt", "type", "error", "detail"),
    "cause",
)
#: The columns of a minute that are summed.
MINUTE_COLUMNS = (*COUNTERS, "runs", "seconds")
ACTION_COLUMNS = ("time", "action", "target", "count", "actor", "detail")
