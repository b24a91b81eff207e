"""The counters of dead letters by topic, fed by the runtime and by replays and purges.

If the broker can count dead letters, the number comes from it (`set_current`) and is correct after
a restart. Otherwise it is the count of this process.
"""

from __future__ import annotations

import time


class DLQTopicMetrics:
    """The dead letters of one topic since the start of this process.

    Attributes:
        received: confirmed dead letters.
        replayed: dead letters given back to their group.
        purged: dead letters deleted.
        attempts: failed runs of all received dead letters together.
        oldest_at: the time of the oldest known dead letter, in seconds since the epoch.
        newest_at: the time of the newest dead letter; 0.0 if there was none.
        updated_at: the time of the last change.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Resets all counters; for tests."""
        self.received = self.replayed = self.purged = self.attempts = 0
        self.oldest_at = self.newest_at = self.updated_at = 0.0
        self._counted: int | None = None
        self._since = 0

    @property
    def current(self) -> int:
        """The number of waiting dead letters."""
        balance = self.received - self.replayed - self.purged
        if self._counted is None:
            return max(0, balance)
        return max(0, self._counted + balance - self._since)

    @property
    def average_retries(self) -> float:
        """The average number of retries of the received dead letters."""
        return max(0, self.attempts - self.received) / self.received if self.received else 0.0

    def add(self, attempts: int, now: float) -> None:
        """Counts a confirmed dead letter, and its failed runs."""
        self.received += 1
        self.attempts += max(1, attempts)
        self.newest_at = self.updated_at = now
        self.oldest_at = self.oldest_at or now

    def replay(self, count: int, now: float) -> None:
        """Counts dead letters that were given back to their group."""
        self.replayed += count
        self._gone(now)

    def purge(self, count: int, now: float) -> None:
        """Counts deleted dead letters."""
        self.purged += count
        self._gone(now)

    def oldest_unknown(self, count: int) -> bool:
        """Whether the oldest dead letter must be read. This is so at the first count, and if
        another process removed some."""
        return bool(count) and (self._counted is None or count < self.current)

    def set_current(self, count: int, oldest_at: float | None, now: float) -> None:
        """Sets the broker's count of waiting dead letters, and the time of the oldest if known."""
        self._counted = count
        self._since = self.received - self.replayed - self.purged
        if oldest_at is not None or not count:
            self.oldest_at = oldest_at or 0.0
        self.updated_at = now

    def _gone(self, now: float) -> None:
        self.updated_at = now
        if not self.current:
            self.oldest_at = 0.0

    def as_dict(self) -> dict[str, object]:
        """Returns all counters, under the Go runtime's names."""
        return {
            "messages_received": self.received,
            "messages_current": self.current,
            "messages_replayed": self.replayed,
            "messages_purged": self.purged,
            "oldest_message_at": timestamp(self.oldest_at),
            "newest_message_at": timestamp(self.newest_at),
            "avg_retry_count": self.average_retries,
            "last_updated_at": timestamp(self.updated_at),
        }


class DLQMetrics:
    """The counters of all dead-letter topics of a service."""

    def __init__(self) -> None:
        self.topics: dict[str, DLQTopicMetrics] = {}

    def topic(self, name: str) -> DLQTopicMetrics:
        """Returns the counters of a topic."""
        return self.topics.setdefault(name, DLQTopicMetrics())

    def snapshot(self) -> dict[str, object]:
        """Returns all counters now, as JSON under the Go runtime's names."""
        topics = self.topics
        return {
            "total_messages": sum(topic.received for topic in topics.values()),
            "total_replayed": sum(topic.replayed for topic in topics.values()),
            "total_purged": sum(topic.purged for topic in topics.values()),
            "topic_metrics": {name: topic.as_dict() for name, topic in topics.items()},
            "collected_at": timestamp(time.time()),
        }

    def reset(self) -> None:
        """Resets all counters; for tests."""
        for topic in self.topics.values():
            topic.reset()


def timestamp(seconds: float) -> str | None:
    """Returns RFC 3339 in UTC, to the millisecond; None for 0.0 (never) and for invalid times,
    which a message may contain."""
    if not seconds:
        return None
    try:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return None
    return f"{text}.{int(seconds % 1 * 1000):03d}Z"
