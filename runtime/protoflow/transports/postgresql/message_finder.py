"""Finding one message: in the log of its topic, and among what waits for a group."""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.counted import counted
from protoflow.transport.message_finder import FoundMessages, GroupState, MessageQuery, Sighting
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.members import Group, find_group
from protoflow.transports.postgresql.rows import read_message

_TOPIC = "SELECT id FROM {s}.topics WHERE name = $1"
# The head begins with the id; the names and values of metadata follow, written as here.
_ITSELF = """
SELECT bucket, seq, key, head, payload, at FROM {s}.log
WHERE topic = $1 AND starts_with(head, $2) ORDER BY seq
"""
_CAUSED = """
SELECT bucket, seq, key, head, payload, at FROM {s}.log
WHERE topic = $1 AND strpos(head, $2) > 0 ORDER BY seq
"""
_WAITING = """
SELECT bucket, coalesce(seq, id), key, head, payload, at, member IS NOT NULL, failures
FROM {s}.waiting WHERE group_id = $1 AND starts_with(head, $2) ORDER BY id
"""
_LEFT_OF_BUCKETS = """
SELECT l.seq FROM unnest($3::int[], $4::int8[]) AS u(bucket, seq)
JOIN {s}.log l ON l.topic = $2 AND l.bucket = u.bucket AND l.seq = u.seq
JOIN {s}.progress p ON p.group_id = $1 AND p.bucket = l.bucket
WHERE (l.xid >= pg_snapshot_xmax(p.base) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p.base))))
  AND NOT (l.seq <= p.seq AND pg_visible_in_snapshot(l.xid, p.open))
  AND NOT l.seq = ANY (p.done)
"""
_LEFT_OF_QUEUE = """
SELECT l.seq FROM unnest($3::int[], $4::int8[]) AS u(bucket, seq)
JOIN {s}.log l ON l.topic = $2 AND l.bucket = u.bucket AND l.seq = u.seq
JOIN {s}.cursors p ON p.group_id = $1
WHERE (l.xid >= pg_snapshot_xmax(p.base) OR l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p.base))))
  AND NOT (l.seq <= p.seqs[l.bucket + 1] AND pg_visible_in_snapshot(l.xid, p.open))
"""
_CLAIMED = """
SELECT member IS NOT NULL FROM {s}.claims WHERE group_id = $1 AND seqs && $2::int8[]
"""


async def find_message(database: Database, query: MessageQuery) -> FoundMessages:
    """Returns what the log shows of a message; see `MessageFinder`."""
    found = FoundMessages()
    for topic in query.topics:
        rows = await database.fetch(_TOPIC, topic)
        if not rows:
            found.not_searched.append(f"{topic}: there is no such topic")
            continue
        number = rows[0][0]
        mine = await database.fetch(_ITSELF, number, _beginning(query.id))
        found.sightings += [_seen(topic, row) for row in mine]
        cause = f"{quote(wire.CAUSATION_ID)}:{quote(query.id)}"
        found.caused += [_seen(topic, row) for row in await database.fetch(_CAUSED, number, cause)]
        found.searched.append(f"log of {topic}")
        for settings in query.subscriptions:
            if settings.topic == topic and not settings.broadcast:
                await _judge(database, settings, query.id, mine, found)
    return found


async def _judge(
    database: Database,
    settings: SubscriptionSettings,
    id: str,
    mine: Sequence[Sequence[Any]],
    found: FoundMessages,
) -> None:
    """How far a group is with the message."""
    group = await find_group(database, settings.topic, settings.group)
    if group is None:
        found.not_searched.append(f"group {settings.group} of {settings.topic}: it does not exist")
        return
    states = []
    for *row, held, failures in await database.fetch(_WAITING, group.id, _beginning(id)):
        if row[1] not in {each[1] for each in mine}:
            sighting = _seen(settings.topic, row, settings.group)
            sighting.time = 0.0  # that of the first copy
            found.sightings.append(sighting)
        after = f" after {counted(failures, 'failed run')}" if failures else ""
        states.append(f"in flight{after}" if held else f"waiting{after}")
    if mine:
        states += await _states(database, group, mine)
    if not states:
        states = ["settled" if mine else "settled or never published"]
    found.groups.append(
        GroupState(topic=settings.topic, group=settings.group, state="; ".join(states))
    )


async def _states(database: Database, group: Group, mine: Sequence[Sequence[Any]]) -> list[str]:
    """What the group has still to do with messages of the log."""
    buckets, seqs = [row[0] for row in mine], [row[1] for row in mine]
    if group.ordering is not Ordering.NONE:
        left = await database.fetch(_LEFT_OF_BUCKETS, group.id, group.topic, buckets, seqs)
        return ["not settled yet"] * len(left)
    left = await database.fetch(_LEFT_OF_QUEUE, group.id, group.topic, buckets, seqs)
    claimed = await database.fetch(_CLAIMED, group.id, seqs)
    return ["waiting"] * len(left) + ["in flight" if held else "waiting" for (held,) in claimed]


def _beginning(id: str) -> str:
    return f"[{quote(id)},"


def _seen(topic: str, row: Sequence[Any], group: str = "") -> Sighting:
    _, position, key, head, payload, at = row
    message, _ = read_message(topic, position, key, head, payload)
    return Sighting(message=message, topic=topic, position=str(position), time=at, group=group)
