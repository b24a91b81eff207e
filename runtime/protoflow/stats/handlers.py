"""The counters of a handler, its latencies and errors, kept by the runtime.

There is only one set of counters. The scheduler counts messages, the `metrics` middleware times
runs,
the outcome applier counts errors; reports, Prometheus and the web pages read the counters. Counting
costs less
than a microsecond for each message, and its memory does not grow. Percentiles are computed when
read.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from protoflow.errors import DecodeError, TransportError
from protoflow.message import Message
from protoflow.outcomes import DeadLetter
from protoflow.stats.dead_letters import DLQMetrics, DLQTopicMetrics
from protoflow.stats.latency import Timings

#: The most topics for which sent messages are counted; further topics share one count.
_TOPICS = 200
_topic = attrgetter("topic")
#: This many error texts of a handler are kept.
_RECENT = 10
OTHER_TOPICS = "(other)"


class ErrorCategory(enum.StrEnum):
    """The categories of errors."""

    NONE = "none"
    #: The message is invalid or cannot be decoded.
    VALIDATION = "validation"
    #: The broker or the connection to it failed.
    TRANSPORT = "transport"
    #: A database or service that the handler calls failed.
    DOWNSTREAM = "downstream"
    OTHER = "other"


#: Returns the category of an error; a service takes it as `error_classifier`.
ErrorClassifier = Callable[[BaseException | None], ErrorCategory]


def classify_error(error: BaseException | None) -> ErrorCategory:
    """The built-in classifier: by the error's type."""
    if error is None:
        return ErrorCategory.NONE
    if isinstance(error, DecodeError):
        return ErrorCategory.VALIDATION
    if isinstance(error, DeadLetter) and error.category in ("validation", "decode"):
        return ErrorCategory.VALIDATION
    if isinstance(error, TransportError):
        return ErrorCategory.TRANSPORT
    if isinstance(error, ConnectionError | TimeoutError):
        return ErrorCategory.DOWNSTREAM
    return ErrorCategory.OTHER


@dataclass(slots=True)
class ErrorBreakdown:
    """Errors by category; only the type of the last error, because texts may contain messages."""

    validation: int = 0
    transport: int = 0
    downstream: int = 0
    other: int = 0
    last_error: str = ""

    def record(self, category: ErrorCategory, error: BaseException) -> None:
        """Counts an error."""
        if category is ErrorCategory.NONE:
            return
        setattr(self, category.value, getattr(self, category.value) + 1)
        self.last_error = type(error).__name__

    def by_category(self) -> Mapping[str, int]:
        """The counts by category."""
        return {
            category.value: getattr(self, category.value)
            for category in ErrorCategory
            if category is not ErrorCategory.NONE
        }


#: The names of the counters of a handler.
COUNTERS = (
    "handled", "failed_runs", "retried", "dead_lettered", "skipped", "dropped", "unhandled",
    "tombstones", "published", "lost", "unknown", "released",
)  # fmt: skip


class SentMessages:
    """Messages that the broker confirmed, by topic."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, messages: Sequence[Message]) -> None:
        """Counts confirmed messages."""
        counts = self._counts
        topics = list(map(_topic, messages))  # nearly always all messages have the same topic
        for name in dict.fromkeys(topics):
            topic = name
            if topic not in counts and len(counts) >= _TOPICS:
                topic = OTHER_TOPICS  # `Output(topic=...)` may name any number of topics
            counts[topic] = counts.get(topic, 0) + topics.count(name)

    def by_topic(self) -> Mapping[str, int]:
        """The counts by topic."""
        return dict(self._counts)


class HandlerStats:
    """Counts of messages and runs since the start of this process.

    Attributes:
        handled: messages whose handler returned.
        failed_runs: failed runs, each counted.
        retried: failed runs that were, or will be, repeated.
        dead_lettered: messages that were given up and confirmed in the dead letters.
        skipped: messages that the handler skipped; they are acknowledged.
        dropped: messages given up and acknowledged, as `on_exhausted: DROP` says.
        unhandled: messages of types without a handler.
        tombstones: skipped messages without payload.
        published: confirmed outputs.
        lost: settlements refused because the lease was lost.
        unknown: settlements with unknown outcome.
        released: messages given back unfinished.
        timings: the durations of runs, including failed ones.
        errors: errors by category.
        recent_errors: the times of the last failed runs, in seconds since the epoch, and their
            error texts without sensitive values; empty if texts are not requested.
        dead_letters: the counters of the handler's dead-letter topic, which other handlers may
            share.
        sent: counts the messages that the whole service sent.
        classify: returns the category of an error.
    """

    __slots__ = (
        *COUNTERS,
        "classify",
        "errors",
        "recent_errors",
        "dead_letters",
        "sent",
        "timings",
    )

    def __init__(
        self,
        *,
        classify: ErrorClassifier = classify_error,
        dead_letters: DLQTopicMetrics | None = None,
        sent: SentMessages | None = None,
    ) -> None:
        self.handled = self.failed_runs = self.retried = self.dead_lettered = 0
        self.skipped = self.dropped = self.unhandled = self.tombstones = 0
        self.published = self.lost = self.unknown = self.released = 0
        self.timings = Timings()
        self.errors = ErrorBreakdown()
        self.recent_errors: deque[tuple[float, str]] = deque(maxlen=_RECENT)
        self.dead_letters = dead_letters or DLQTopicMetrics()
        self.sent = sent or SentMessages()
        self.classify = classify

    def confirmed(self, outputs: Sequence[Message]) -> None:
        """Counts confirmed outputs; the submitter has already counted them as sent."""
        self.published += len(outputs)

    def error(self, outcome: BaseException) -> None:
        """Counts an error of a run, or of a message that could not be handled."""
        error = outcome.__cause__ or outcome
        self.errors.record(self.classify(error), error)

    def __repr__(self) -> str:
        counts = (f"{name}={count}" for name, count in self.as_dict().items() if count)
        return f"HandlerStats({', '.join(counts)})"

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {name: getattr(self, name) for name in COUNTERS}


class Counters:
    """The counters of a service: its handlers, its dead letters and its sent messages.

    Args:
        classify: returns the category of an error.
    """

    def __init__(self, classify: ErrorClassifier = classify_error) -> None:
        self._classify = classify
        self.handlers: dict[str, HandlerStats] = {}
        self.dead_letters = DLQMetrics()
        self.sent = SentMessages()

    def open(self, handler: str, dead_letter_topic: str) -> HandlerStats:
        """Returns new counters for a handler."""
        stats = HandlerStats(
            dead_letters=self.dead_letters.topic(dead_letter_topic),
            sent=self.sent,
            classify=self._classify,
        )
        self.handlers[handler] = stats
        return stats
