"""The books of a handler: counters, latencies and errors, kept by the runtime.

There is one set of books. The scheduler counts messages, the `metrics` middleware times runs,
the carrier notes errors; reports, Prometheus and the web pages read. What is written per
message costs less than a microsecond and never grows; percentiles are made when read.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from protoflow.dlq_metrics import DLQMetrics, DLQTopicMetrics
from protoflow.errors import DecodeError, TransportError
from protoflow.message import Message
from protoflow.outcomes import DeadLetter
from protoflow.records import record

#: Bounds of the latency histogram in seconds, as the semantic conventions advise:
#: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Percentiles are those of the last so many runs.
SAMPLES = 1024
#: Throughput is that of the last so many seconds.
WINDOW = 60
#: Messages sent are counted for so many topics, beyond them together.
_TOPICS = 200
OTHER_TOPICS = "(other)"


class ErrorCategory(enum.StrEnum):
    """What kind of trouble an error is."""

    NONE = "none"
    #: The message is no good: undecodable, invalid.
    VALIDATION = "validation"
    #: The broker, or the way to it.
    TRANSPORT = "transport"
    #: What the handler calls: databases, services.
    DOWNSTREAM = "downstream"
    OTHER = "other"


#: Tells the category of an error; given to a service as `error_classifier`.
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
    """Errors by category; of the last one only its type, since texts may quote messages."""

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


@record
class LatencyMetrics:
    """How long runs take: the average of all, percentiles of the last `sample_size`."""

    average_ns: int = 0
    p50_ns: int = 0
    p95_ns: int = 0
    p99_ns: int = 0
    last_ns: int = 0
    sample_size: int = 0


@record
class ThroughputMetrics:
    """How many messages went through the handler, lately and at all."""

    current_rps: float = 0.0
    window_seconds: float = float(WINDOW)
    messages_in_window: int = 0
    total_messages: int = 0


_COUNTERS = (
    "handled", "failed_runs", "retried", "dead_lettered", "skipped", "dropped", "unhandled",
    "tombstones", "published", "lost", "unknown", "released",
)  # fmt: skip


class SentMessages:
    """Messages that the broker confirmed, by topic."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, messages: Sequence[Message]) -> None:
        """These are confirmed."""
        counts = self._counts
        for message in messages:
            topic = message.topic
            if topic not in counts and len(counts) >= _TOPICS:
                topic = OTHER_TOPICS  # `Output(topic=...)` may name any number
            counts[topic] = counts.get(topic, 0) + 1

    def by_topic(self) -> Mapping[str, int]:
        """The counts by topic."""
        return dict(self._counts)


class HandlerStats:
    """What became of messages and runs since the start of this process.

    Attributes:
        handled: messages whose handler returned.
        failed_runs: runs that failed, each counted.
        retried: failed runs that were, or will be, repeated.
        dead_lettered: messages that were given up and confirmed in the dead letters.
        skipped: messages acknowledged unhandled because the handler said so.
        dropped: messages given up and acknowledged, as `on_exhausted: DROP` says.
        unhandled: messages of types that nobody handles.
        tombstones: messages without payload that were skipped.
        published: outputs that were confirmed.
        lost: settlements refused because the lease was lost.
        unknown: settlements of which nobody knows whether the broker has them.
        released: messages given back unfinished.
        runs: runs that were timed, failed ones included.
        ran_messages: messages in them; a batch is one run.
        seconds: the time of all runs together.
        last_seconds: the time of the last run.
        last_at: when it ended, in seconds of the clock that timed it; 0.0 is never.
        buckets: runs by duration, one more than `BOUNDS`.
        errors: errors by category.
        letters: the books of the handler's dead-letter topic, which others may share.
        sent: the messages that the whole service sent.
        classify: tells the category of an error.
    """

    __slots__ = (
        *_COUNTERS,
        "_samples",
        "_second",
        "_window",
        "buckets",
        "classify",
        "errors",
        "last_at",
        "last_seconds",
        "letters",
        "ran_messages",
        "runs",
        "seconds",
        "sent",
    )

    def __init__(
        self,
        *,
        classify: ErrorClassifier = classify_error,
        letters: DLQTopicMetrics | None = None,
        sent: SentMessages | None = None,
    ) -> None:
        self.handled = self.failed_runs = self.retried = self.dead_lettered = 0
        self.skipped = self.dropped = self.unhandled = self.tombstones = 0
        self.published = self.lost = self.unknown = self.released = 0
        self.runs = self.ran_messages = 0
        self.seconds = self.last_seconds = self.last_at = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.errors = ErrorBreakdown()
        self.letters = letters or DLQTopicMetrics()
        self.sent = sent or SentMessages()
        self.classify = classify
        self._samples = array("d", bytes(8 * SAMPLES))
        self._window = [0] * WINDOW
        self._second = 0

    def ran(self, start: float, end: float, messages: int = 1) -> None:
        """A run took from `start` to `end`, in seconds of one monotonic clock."""
        seconds = self.last_seconds = end - start
        self._samples[self.runs % SAMPLES] = seconds
        self.runs += 1
        self.ran_messages += messages
        self.seconds += seconds
        self.last_at = end
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        second = int(end)
        if second != self._second:
            self._roll(second)
        self._window[second % WINDOW] += messages

    def confirmed(self, outputs: Sequence[Message]) -> None:
        """These outputs are confirmed."""
        self.published += len(outputs)
        self.sent.add(outputs)

    def error(self, outcome: BaseException) -> None:
        """A run failed, or a message could not be handled at all."""
        error = outcome.__cause__ or outcome
        self.errors.record(self.classify(error), error)

    def latency(self) -> LatencyMetrics:
        """How long runs take."""
        size = min(self.runs, SAMPLES)
        if not size:
            return LatencyMetrics()
        samples = sorted(self._samples[:size])

        def percentile(share: float) -> int:
            return _nanoseconds(samples[min(size - 1, int(share * size))])

        return LatencyMetrics(
            average_ns=_nanoseconds(self.seconds / self.runs),
            p50_ns=percentile(0.50),
            p95_ns=percentile(0.95),
            p99_ns=percentile(0.99),
            last_ns=_nanoseconds(self.last_seconds),
            sample_size=size,
        )

    def throughput(self, now: float) -> ThroughputMetrics:
        """How many messages ran in the last minute; `now` is of the clock that timed them."""
        second = int(now)
        if second != self._second:
            self._roll(second)
        count = sum(self._window)
        return ThroughputMetrics(
            current_rps=count / WINDOW, messages_in_window=count, total_messages=self.ran_messages
        )

    def histogram(self) -> list[tuple[float, int]]:
        """For each bound in seconds how many runs took at most so long; the last is infinite."""
        return list(zip((*BOUNDS, float("inf")), accumulate(self.buckets), strict=True))

    def __repr__(self) -> str:
        counts = (f"{name}={count}" for name, count in self.as_dict().items() if count)
        return f"HandlerStats({', '.join(counts)})"

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def _roll(self, second: int) -> None:
        """Empties the seconds since the last one; older ones are a turn of the ring away."""
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            self._window[passed % WINDOW] = 0
        self._second = second


class Books:
    """The books of a service: those of its handlers and of its dead letters."""

    def __init__(self) -> None:
        self.classify: ErrorClassifier = classify_error
        self.handlers: dict[str, HandlerStats] = {}
        self.dead_letters = DLQMetrics()
        self.sent = SentMessages()

    def open(self, handler: str, dead_letter_topic: str) -> HandlerStats:
        """The books of one handler, opened when it is assembled."""
        stats = HandlerStats(
            letters=self.dead_letters.topic(dead_letter_topic),
            sent=self.sent,
            classify=self.classify,
        )
        self.handlers[handler] = stats
        return stats


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
