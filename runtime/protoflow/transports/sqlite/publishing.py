"""Publishing: all submissions during one job of the thread become the next job."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from protoflow.error_codes import NO_SUBSCRIBER
from protoflow.errors import ProtoflowError, PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.schema import TOPIC_SHIFT
from protoflow.transports.sqlite.topics import make_dead_letters

Results = Sequence[PublishError | None]

#: The extra size of a dead letter: the reason, the origin, the attempts.
_HEADROOM = 256 * 1024
#: This limit keeps a flood from becoming one very long transaction.
_MAX_SUBMISSIONS = 4096


class Limits:
    """The limits of message sizes. A dead letter may be larger, because it also holds the reason,
    so that every published message can be dead-lettered.

    Attributes:
        most: the bound in bytes.
        dead_letter_topics: the topics with the larger limit.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.dead_letter_topics: frozenset[str] = frozenset()

    def bound(self, topic: str) -> int:
        """Returns the limit for a topic."""
        return self.most + _HEADROOM if topic in self.dead_letter_topics else self.most


class Outgoing:
    """Messages as columns, by topic, in the order of their arrival."""

    def __init__(self, recent: Recent | None = None) -> None:
        self.topics: dict[str, list[Any]] = {}
        self._recent = recent
        self._messages: dict[str, list[Message]] = {}

    def add(
        self, messages: Iterable[Message], now: float, limits: Limits
    ) -> dict[int, PublishError] | None:
        """Adds messages; returns the errors of those that can never be stored, by index."""
        refused: dict[int, PublishError] | None = None
        topics, columns, time, most = self.topics, rows.columns, repr(now), limits.most
        for index, message in enumerate(messages):
            try:
                values = columns(message, now, time, most)
                if isinstance(values, int):
                    values = _roomy(message, now, time, limits, values)
                if (queue := topics.get(message.topic)) is not None:
                    queue += values
                    self._messages[message.topic].append(message)
                else:
                    message.topic.encode()  # SQLite refuses lone surrogates
                    topics[message.topic] = [*values]
                    self._messages[message.topic] = [message]
            except (ValueError, TypeError, AttributeError) as error:
                refused = refused or {}
                refused[index] = refusal(message, error)
        return refused

    def merge(self, other: Outgoing) -> None:
        """Adds the messages of another object after the existing ones."""
        for topic, values in other.topics.items():
            self.topics.setdefault(topic, []).extend(values)
            self._messages.setdefault(topic, []).extend(other._messages[topic])

    def write(self, connection: sqlite3.Connection, but: Collection[str] = ()) -> None:
        """Stores the messages in a transaction, except those of the topics in `but`."""
        recent = self._recent
        for topic, values in self.topics.items():
            if topic in but:
                continue
            count = len(values) // rows.COLUMNS
            id, following, dead = connection.execute(
                "INSERT INTO protoflow_topics (name, next) VALUES (?1, 1 + ?2) "
                "ON CONFLICT (name) DO UPDATE SET next = next + ?2 RETURNING id, next, dead",
                (topic, count),
            ).fetchall()[0]
            first = (id << TOPIC_SHIFT) + following - count
            rows.insert(connection, first, values)
            if dead:
                make_dead_letters(connection, id, first, first + count - 1)
            if recent is not None and topic in recent.topics:
                times, sizes = values[3 :: rows.COLUMNS], values[5 :: rows.COLUMNS]
                recent.add(first, self._messages[topic], times, sizes)


def _roomy(message: Message, now: float, time: str, limits: Limits, size: int) -> tuple[Any, ...]:
    """Returns the columns of a message above the limit, if its topic allows the larger limit."""
    values = rows.columns(message, now, time, limits.bound(message.topic))
    if isinstance(values, int):
        raise ValueError(f"it has {size} bytes, max_message_bytes is {limits.most}")
    return values


def refusal(message: Message, error: Exception) -> PublishRefusedError:
    """Returns why a message can never be stored."""
    failure = PublishRefusedError(
        f"message {message.id!r} for {message.topic!r} cannot be stored: {error}"
    )
    failure.__cause__ = error
    return failure


class Publication:
    """A job with several submissions, each with its future."""

    writes = True

    def __init__(
        self, recent: Recent, published: Callable[[Collection[str]], None], require_subscriber: bool
    ) -> None:
        self._outgoing = Outgoing(recent)
        self._published = published
        self._require_subscriber = require_subscriber
        self._submissions: list[
            tuple[asyncio.Future[Results], Sequence[Message], dict[int, PublishError] | None]
        ] = []

    @property
    def full(self) -> bool:
        """Whether the next submission should become a separate job."""
        return len(self._submissions) >= _MAX_SUBMISSIONS

    def submit(
        self, messages: Sequence[Message], now: float, limits: Limits
    ) -> asyncio.Future[Results]:
        """Adds messages."""
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        refused = self._outgoing.add(messages, now, limits)
        self._submissions.append((future, messages, refused))
        return future

    def run(self, connection: sqlite3.Connection) -> Collection[str]:
        """Stores the messages; returns the topics for which nothing was stored."""
        unsubscribed = (
            unsubscribed_topics(connection, self._outgoing.topics)
            if self._require_subscriber
            else ()
        )
        self._outgoing.write(connection, unsubscribed)
        return unsubscribed

    def done(self, result: Collection[str]) -> None:
        """Answers the submissions, and wakes subscriptions."""
        for future, messages, refused in self._submissions:
            errors: list[PublishError | None] = [None] * len(messages)
            if result:
                for index, message in enumerate(messages):
                    if message.topic in result:
                        errors[index] = PublishError(
                            f"no group consumes {message.topic}, and require_subscriber is set",
                            code=NO_SUBSCRIBER,
                        )
            for index, error in (refused or {}).items():
                errors[index] = error
            if not future.done():
                future.set_result(errors)
        self._published(self._outgoing.topics.keys() - result)

    def failed(self, error: ProtoflowError) -> None:
        """Fails all submissions, because nothing was stored."""
        for future, messages, refused in self._submissions:
            errors: list[PublishError | None] = []
            for index in range(len(messages)):
                failure = PublishError(str(error))
                failure.__cause__ = error.__cause__ or error
                errors.append(refused[index] if refused and index in refused else failure)
            if not future.done():
                future.set_result(errors)


def unsubscribed_topics(connection: sqlite3.Connection, topics: Iterable[str]) -> set[str]:
    """Returns the topics that no group consumes and that are no dead-letter topics."""
    query = (
        "SELECT 1 FROM protoflow_topics t WHERE t.name = ? AND (t.dead OR EXISTS "
        "(SELECT 1 FROM protoflow_groups g WHERE g.topic = t.id))"
    )
    return {topic for topic in topics if not connection.execute(query, (topic,)).fetchall()}
