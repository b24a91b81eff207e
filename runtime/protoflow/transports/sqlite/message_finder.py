"""Finds one message among the rows of messages that a group has not settled yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii as quote

from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.counted import counted
from protoflow.transport.message_finder import FoundMessages, GroupState, MessageQuery, Sighting
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.schema import POSITION, REPLAYS, TOPIC_SHIFT
from protoflow.transports.sqlite.topics import Group

#: The state of a message without a row.
_GONE = "settled or never published"

_TOPIC = "SELECT id FROM protoflow_topics WHERE name = ?"
# The head begins with the id; the names and values of metadata follow in this form.
_ITSELF = (
    "SELECT sequence FROM protoflow_messages WHERE sequence BETWEEN ? AND ? "
    "AND substr(head, 1, length(?3)) = ?3 ORDER BY sequence"
)
_CAUSED = (
    "SELECT sequence FROM protoflow_messages WHERE sequence BETWEEN ? AND ? "
    "AND instr(head, ?) ORDER BY sequence"
)
_REPLAYED = (
    "SELECT m.sequence FROM protoflow_messages m JOIN protoflow_deliveries d "
    "ON d.sequence = m.sequence WHERE m.sequence > ? AND d.group_id = ? "
    "AND substr(m.head, 1, length(?3)) = ?3"
)
_GROUP = (
    "SELECT g.id, g.position, g.ordering FROM protoflow_groups g WHERE g.topic = ? AND g.name = ?"
)
_DELIVERY = "SELECT token, failures FROM protoflow_deliveries WHERE sequence = ? AND group_id = ?"


def find_message(connection: sqlite3.Connection, query: MessageQuery) -> FoundMessages:
    """Returns the rows' information about a message; see `MessageFinder`."""
    found = FoundMessages()
    for topic in query.topics:
        row = connection.execute(_TOPIC, (topic,)).fetchone()
        if row is None:
            found.not_searched.append(f"{topic}: there is no such topic")
            continue
        number = int(row[0])
        bounds = (number << TOPIC_SHIFT, number << TOPIC_SHIFT | POSITION)
        mine = _matching(connection, _ITSELF, (*bounds, _beginning(query.id)))
        found.sightings += _seen(connection, topic, mine)
        cause = f"{quote(wire.CAUSATION_ID)}:{quote(query.id)}"
        found.caused += _seen(connection, topic, _matching(connection, _CAUSED, (*bounds, cause)))
        found.searched.append(f"rows of {topic}")
        for settings in query.subscriptions:
            if settings.topic == topic and not settings.broadcast:
                _judge(connection, number, settings, query.id, mine, found)
    return found


def _judge(
    connection: sqlite3.Connection,
    topic: int,
    settings: SubscriptionSettings,
    id: str,
    sequences: list[int],
    found: FoundMessages,
) -> None:
    """Determines the state of a message in a group; its replay has a separate row."""
    row = connection.execute(_GROUP, (topic, settings.group)).fetchone()
    if row is None:
        found.not_searched.append(f"group {settings.group} of {settings.topic}: it does not exist")
        return
    group = Group(row[0], topic, settings.topic, Ordering(row[2]))
    replays = _matching(connection, _REPLAYED, (REPLAYS, group.id, _beginning(id)))
    for sighting in _seen(connection, settings.topic, replays, settings.group):
        sighting.time = 0.0  # the id of the dead letter's row
        found.sightings.append(sighting)
    states = [
        state
        for sequence in (*replays, *sequences)
        if (state := _state(connection, group, row[1], sequence))
    ]
    if not states:
        states = ["settled" if sequences else _GONE]
    found.groups.append(
        GroupState(topic=settings.topic, group=settings.group, state="; ".join(states))
    )


def _state(connection: sqlite3.Connection, group: Group, position: int, sequence: int) -> str:
    """Returns the state of a row in the group; empty if it is settled."""
    if position < sequence <= group.last:
        return "waiting"
    row = connection.execute(_DELIVERY, (sequence, group.id)).fetchone()
    if row is None:
        return ""
    token, failures = row
    after = f" after {counted(failures, 'failed run')}" if failures else ""
    return f"in flight{after}" if token else f"waiting{after}"


def _beginning(id: str) -> str:
    return f"[{quote(id)},"


def _matching(connection: sqlite3.Connection, query: str, values: tuple[object, ...]) -> list[int]:
    return [sequence for (sequence,) in connection.execute(query, values)]


def _seen(
    connection: sqlite3.Connection, topic: str, sequences: list[int], group: str = ""
) -> Iterator[Sighting]:
    for delivery in rows.read_listed(connection, topic, sequences) if sequences else ():
        yield Sighting(
            message=delivery.message,
            topic=topic,
            position=str(delivery.position),
            time=delivery.time,
            group=group,
        )
