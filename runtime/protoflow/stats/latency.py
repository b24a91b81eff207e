"""The latencies and the throughput of a handler's runs.

A run costs one append to a list. Statistics are computed for many runs at once, when the list is
long enough or when they are read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from protoflow.dataclass_record import dataclass_record

#: Bounds of the latency histogram in seconds, from the semantic conventions:
#: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Percentiles cover the last runs, this many.
SAMPLES = 1024
#: Throughput covers this many last seconds.
WINDOW = 60
#: This many runs are kept before they are evaluated: start and end of each.
_KEPT = 2 * 64


@dataclass_record
class LatencyMetrics:
    """The duration of runs: the average of all, and percentiles of the last `sample_size`."""

    average_ns: int = 0
    p50_ns: int = 0
    p95_ns: int = 0
    p99_ns: int = 0
    last_ns: int = 0
    sample_size: int = 0


@dataclass_record
class ThroughputMetrics:
    """The number of handled messages, recently and in total."""

    current_rps: float = 0.0
    window_seconds: float = float(WINDOW)
    messages_in_window: int = 0
    total_messages: int = 0


class Timings:
    """The runs of one handler. All times are seconds of one monotonic clock."""

    __slots__ = ("_buckets", "_kept", "_last_at", "_last_seconds", "_messages", "_runs",
                 "_samples", "_second", "_seconds", "_window")  # fmt: skip

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._runs = self._messages = self._second = 0
        self._seconds = self._last_seconds = self._last_at = 0.0
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._samples = array("d", bytes(8 * SAMPLES))
        self._window = [0] * WINDOW

    def ran(self, start: float, end: float) -> None:
        """Records a run with one message, from `start` to `end`."""
        kept = self._kept
        kept += (start, end)
        if len(kept) >= _KEPT:
            self._reckon()

    def ran_batch(self, start: float, end: float, messages: int) -> None:
        """Records a run with several messages, from `start` to `end`."""
        self._reckon()
        self._add([end - start])
        self._went_through(int(end), messages)
        self._last_at = end

    @property
    def runs(self) -> int:
        """The number of runs, including failed ones."""
        self._reckon()
        return self._runs

    @property
    def seconds(self) -> float:
        """The total time of all runs."""
        self._reckon()
        return self._seconds

    @property
    def last_at(self) -> float:
        """The end of the last run; 0.0 if there was none."""
        self._reckon()
        return self._last_at

    def latency(self) -> LatencyMetrics:
        """Returns the latencies of runs."""
        self._reckon()
        size = min(self._runs, SAMPLES)
        if not size:
            return LatencyMetrics()
        samples = sorted(self._samples[:size])

        def percentile(share: float) -> int:
            return _nanoseconds(samples[min(size - 1, int(share * size))])

        return LatencyMetrics(
            average_ns=_nanoseconds(self._seconds / self._runs),
            p50_ns=percentile(0.50),
            p95_ns=percentile(0.95),
            p99_ns=percentile(0.99),
            last_ns=_nanoseconds(self._last_seconds),
            sample_size=size,
        )

    def throughput(self, now: float) -> ThroughputMetrics:
        """Returns the number of messages that were handled in the last minute."""
        self._reckon()
        self._roll(int(now))
        count = sum(self._window)
        return ThroughputMetrics(
            current_rps=count / WINDOW, messages_in_window=count, total_messages=self._messages
        )

    def histogram(self) -> list[tuple[float, int]]:
        """Returns the number of runs up to each bound in seconds; the last bound is infinite."""
        self._reckon()
        return list(zip((*BOUNDS, float("inf")), accumulate(self._buckets), strict=True))

    def _reckon(self) -> None:
        """Evaluates the kept runs."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        starts, ends = kept[::2], kept[1::2]
        self._add([end - start for start, end in zip(starts, ends, strict=True)])
        for second, messages in Counter(map(int, ends)).items():
            self._went_through(second, messages)
        self._last_at = ends[-1]

    def _add(self, durations: list[float]) -> None:
        at = self._runs % SAMPLES
        first, wrapped = durations[: SAMPLES - at], durations[SAMPLES - at :]
        self._samples[at : at + len(first)] = array("d", first)
        self._samples[: len(wrapped)] = array("d", wrapped)
        self._runs += len(durations)
        self._seconds += sum(durations)
        self._last_seconds = durations[-1]
        buckets = self._buckets
        if max(durations) <= BOUNDS[0]:
            buckets[0] += len(durations)
        else:
            for seconds in durations:
                buckets[bisect_left(BOUNDS, seconds)] += 1

    def _went_through(self, second: int, messages: int) -> None:
        self._messages += messages
        self._roll(second)
        self._window[second % WINDOW] += messages

    def _roll(self, second: int) -> None:
        """Clears the counts of the seconds since the last one; the ring overwrites older ones."""
        if second == self._second:
            return
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            self._window[passed % WINDOW] = 0
        self._second = second


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
