"""Topics and groups."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from protoflow.contract.spec import Ordering, Start
from protoflow.transport.interface import SubscriptionSettings, Topology
from protoflow.transports.sqlite.schema import BLOCKED, REPLAYS, TOPIC_SHIFT

_STEP = 1000


@dataclass(frozen=True, slots=True)
class Group:
    """A group as stored in the database."""

    id: int
    topic: int
    topic_name: str
    ordering: Ordering

    @property
    def first(self) -> int:
        """The lowest sequence for messages of the topic."""
        return self.topic << TOPIC_SHIFT

    @property
    def last(self) -> int:
        """The highest sequence for messages of the topic."""
        return self.first + (1 << TOPIC_SHIFT) - 1

    def lane(self, key: bytes | None) -> bytes | None:
        """Returns the lane of a message with this key; None means a separate lane."""
        if self.ordering is Ordering.NONE:
            return None
        return b"" if self.ordering is Ordering.PER_PARTITION else key or None


@dataclass(frozen=True, slots=True)
class Session:
    """A member of a group."""

    id: int
    group: Group


def make_topic(connection: sqlite3.Connection, name: str, *, dead: bool = False) -> int:
    """Returns the id of a topic, which is created if necessary. If it becomes a dead-letter topic,
    its messages become dead letters."""
    connection.execute(
        "INSERT INTO protoflow_topics (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,)
    )
    query = "SELECT id, dead FROM protoflow_topics WHERE name = ?"
    topic, was_dead = connection.execute(query, (name,)).fetchone()
    if dead and not was_dead:
        connection.execute("UPDATE protoflow_topics SET dead = 1 WHERE id = ?", (topic,))
        first = topic << TOPIC_SHIFT
        make_dead_letters(connection, topic, first, first + (1 << TOPIC_SHIFT) - 1)
    return int(topic)


def make_dead_letters(connection: sqlite3.Connection, topic: int, first: int, last: int) -> None:
    """Makes messages dead letters."""
    connection.execute(
        "INSERT INTO protoflow_letters SELECT sequence, ?, coalesce(CASE WHEN json_valid(head) "
        "THEN json_extract(head, '$[0]') END, 'row ' || sequence) "
        "FROM protoflow_messages WHERE sequence BETWEEN ? AND ?",
        (topic, first, last),
    )


def make_group(connection: sqlite3.Connection, settings: SubscriptionSettings, name: str) -> Group:
    """Returns a subscription's group with its dead-letter topics; creates it if necessary."""
    for dead_letter_topic in settings.dead_letter_topics:
        make_topic(connection, dead_letter_topic, dead=True)
    topic = make_topic(connection, settings.topic)
    position = topic << TOPIC_SHIFT
    if settings.start is Start.LATEST or settings.broadcast:
        query = "SELECT next - 1 FROM protoflow_topics WHERE id = ?"
        position += connection.execute(query, (topic,)).fetchone()[0]
    ordering = settings.ordering
    connection.execute(
        "INSERT INTO protoflow_groups (topic, name, position, ordering) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (topic, name) DO NOTHING",
        (topic, name, position, ordering.value),
    )
    query = "SELECT id, ordering FROM protoflow_groups WHERE topic = ? AND name = ?"
    id, before = connection.execute(query, (topic, name)).fetchone()
    group = Group(id, topic, settings.topic, ordering)
    if before != ordering.value:
        _reorder(connection, group)
    return group


def _reorder(connection: sqlite3.Connection, group: Group) -> None:
    """Changes the lanes of existing rows, because the contract demands another order."""
    lane = {Ordering.NONE: "NULL", Ordering.PER_PARTITION: "x''"}.get(
        group.ordering,
        "(SELECT nullif(m.key, x'') FROM protoflow_messages m "
        "WHERE m.sequence = protoflow_deliveries.sequence)",
    )
    connection.execute(
        f"UPDATE protoflow_deliveries SET lane = {lane}, "  # noqa: S608  constants
        "until = CASE WHEN token = 0 THEN due ELSE until END WHERE group_id = ?",
        (group.id,),
    )
    connection.execute(
        "UPDATE protoflow_deliveries SET until = ?1 WHERE group_id = ?2 AND token = 0 "
        "AND EXISTS (SELECT 1 FROM protoflow_deliveries e WHERE e.group_id = ?2 "
        "  AND e.lane = protoflow_deliveries.lane AND e.token = 0 "
        "  AND e.sequence < protoflow_deliveries.sequence)",
        (BLOCKED, group.id),
    )
    connection.execute(
        "UPDATE protoflow_groups SET ordering = ? WHERE id = ?", (group.ordering.value, group.id)
    )


def make(connection: sqlite3.Connection, topology: Topology) -> None:
    """Creates the missing parts of a topology."""
    for name in topology.topics:
        make_topic(connection, name)
    for settings in topology.subscriptions:
        if settings.broadcast:
            make_topic(connection, settings.topic)
        else:
            make_group(connection, settings, settings.group)


def missing(connection: sqlite3.Connection, topology: Topology) -> list[str]:
    """Returns the missing parts of a topology."""
    topics = {name for (name,) in connection.execute("SELECT name FROM protoflow_topics")}
    groups = {
        (topic, name)
        for topic, name in connection.execute(
            "SELECT t.name, g.name FROM protoflow_groups g JOIN protoflow_topics t "
            "ON t.id = g.topic"
        )
    }
    lacking = [f"topic {name}" for name in topology.topics if name not in topics]
    for settings in topology.subscriptions:
        if not settings.broadcast and (settings.topic, settings.group) not in groups:
            lacking.append(f"group {settings.group} of topic {settings.topic}")
        lacking += [
            f"dead-letter topic {name}"
            for name in settings.dead_letter_topics
            if name not in topics
        ]
    return lacking


def remove_group(connection: sqlite3.Connection, group: int) -> None:
    """Removes a group and its unfinished messages."""
    query = "DELETE FROM protoflow_groups WHERE id = ? RETURNING topic"
    row = connection.execute(query, (group,)).fetchone()
    connection.execute("DELETE FROM protoflow_deliveries WHERE group_id = ?", (group,))
    if row is not None:
        remove_finished(connection, row[0])


def remove_finished(connection: sqlite3.Connection, topic: int) -> None:
    """Removes a topic's messages that every group has finished and that are not retained."""
    first = topic << TOPIC_SHIFT
    query = "SELECT min(position) FROM protoflow_groups WHERE topic = ?"
    (position,) = connection.execute(query, (topic,)).fetchone()
    if position is None:
        return
    connection.execute(
        "DELETE FROM protoflow_messages WHERE (sequence BETWEEN ? AND ? OR sequence > ?) "
        "AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries d "
        "  WHERE d.sequence = protoflow_messages.sequence) "
        "AND NOT EXISTS (SELECT 1 FROM protoflow_letters l "
        "  WHERE l.sequence = protoflow_messages.sequence)",
        (first, position, REPLAYS),
    )


def find_group(connection: sqlite3.Connection, topic: str, name: str) -> Group | None:
    """The group of that name, if there is one."""
    query = (
        "SELECT g.id, g.topic, g.ordering FROM protoflow_groups g JOIN protoflow_topics t "
        "ON t.id = g.topic WHERE t.name = ? AND g.name = ?"
    )
    row = connection.execute(query, (topic, name)).fetchone()
    return Group(row[0], row[1], topic, Ordering(row[2])) if row else None


def lag(connection: sqlite3.Connection, topic: str, name: str) -> tuple[int, float | None]:
    """Returns the number of unfinished messages of a group, and the time of the oldest."""
    group = find_group(connection, topic, name)
    if group is None:
        return 0, None
    beyond, following = connection.execute(
        "SELECT coalesce(min(m.sequence), 0), ((t.id << ?) + t.next) FROM protoflow_topics t "
        "JOIN protoflow_groups g ON g.topic = t.id LEFT JOIN protoflow_messages m "
        "ON m.sequence > g.position AND m.sequence <= ? WHERE g.id = ?",
        (TOPIC_SHIFT, group.last, group.id),
    ).fetchone()
    taken, oldest = connection.execute(
        "SELECT count(*), min(m.time) FROM protoflow_deliveries d "
        "JOIN protoflow_messages m ON m.sequence = d.sequence "
        "WHERE d.group_id = ? AND (d.sequence BETWEEN ? AND ? OR d.sequence > ?)",
        (group.id, group.first, group.last, REPLAYS),
    ).fetchone()
    if beyond:
        query = "SELECT time FROM protoflow_messages WHERE sequence = ?"
        (time,) = connection.execute(query, (beyond,)).fetchone()
        oldest = time if oldest is None else min(oldest, time)
    return taken + (following - beyond if beyond else 0), oldest


def drop_retained(connection: sqlite3.Connection, before: float, most: int) -> None:
    """Deletes messages of topics without groups that are too old or too many."""
    topics = connection.execute(
        "SELECT id, next FROM protoflow_topics t WHERE dead = 0 AND NOT EXISTS "
        "(SELECT 1 FROM protoflow_groups g WHERE g.topic = t.id)"
    ).fetchall()
    for topic, following in topics:
        first = topic << TOPIC_SHIFT
        connection.execute(
            "DELETE FROM protoflow_messages WHERE sequence >= ? AND sequence < ?",
            (first, first + max(0, following - most)),
        )
        # Messages are in order of time: a step ends at the first message that is young enough.
        while (
            connection.execute(
                "DELETE FROM protoflow_messages WHERE max(time, coalesce(due, 0)) < ? "
                "AND sequence IN (SELECT sequence FROM protoflow_messages "
                "  WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?)",
                (before, first, first + (1 << TOPIC_SHIFT) - 1, _STEP),
            ).rowcount
            == _STEP
        ):
            pass
