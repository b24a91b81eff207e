"""Topics and groups: made, verified, measured."""

from __future__ import annotations

from protoflow.contract.spec import Ordering
from protoflow.error_codes import TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.transport.lag import Lag
from protoflow.transport.settings import SubscriptionSettings, Topology
from protoflow.transports.postgresql import members, positions
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.members import Group
from protoflow.transports.postgresql.positions import Position
from protoflow.transports.postgresql.schema import BUCKETS

_MARK_DEAD = "UPDATE {s}.topics SET dead = true WHERE id = ANY ($1::int[]) AND NOT dead"
_TOPICS = "SELECT name FROM {s}.topics WHERE name = ANY ($1::text[])"
_CURSOR = """
SELECT base::text, open::text, low, high, upto, seqs FROM {s}.cursors WHERE group_id = $1
"""
_PROGRESS = """
SELECT bucket, base::text, open::text, low, high, upto, seq, cardinality(done)
FROM {s}.progress WHERE group_id = $1 ORDER BY bucket
"""
# Rows that wait have an index by group, and rows that a member holds one by member.
_OTHERS = """
WITH mine AS (
  SELECT at FROM {s}.waiting WHERE group_id = $1 AND member IS NULL
  UNION ALL
  SELECT w.at FROM {s}.members m JOIN {s}.waiting w ON w.member = m.id WHERE m.group_id = $1)
SELECT (SELECT count(*) FROM mine), (SELECT min(at) FROM mine),
  (SELECT coalesce(sum(cardinality(seqs)), 0) FROM {s}.claims WHERE group_id = $1), {s}.now()
"""
_OLDEST_CLAIM = """
SELECT min(l.at) FROM {s}.claims c, unnest(c.buckets, c.seqs) AS u(bucket, seq)
JOIN {s}.log l ON l.topic = $2 AND l.bucket = u.bucket AND l.seq = u.seq WHERE c.group_id = $1
"""


async def make(database: Database, topology: Topology) -> None:
    """Makes topics and groups."""
    dead = [name for each in topology.subscriptions for name in each.dead_letter_topics]
    names = [*topology.topics, *dead, *(each.topic for each in topology.subscriptions)]
    if names:
        ids = await database.topic_ids(names)
        await database.fetch(_MARK_DEAD, [ids[name] for name in dead])
    for each in topology.subscriptions:
        if not each.broadcast:
            await _convert(database, each)
            await members.make_group(database, each)


async def _convert(database: Database, settings: SubscriptionSettings) -> None:
    """Gives a group an order, or takes it away, if it has nothing under way."""
    group = await members.find_group(database, settings.topic, settings.group)
    if group is None or members.same_kind(group.ordering, settings.ordering):
        return
    opening = await positions.open_batch(database)  # before it is counted what is left
    if (await lag(database, settings.topic, settings.group)).messages == 0:
        await members.convert_group(database, group, settings.ordering, positions.end(opening))


async def missing(database: Database, topology: Topology) -> list[str]:
    """Returns what does not exist, for people."""
    names: set[str] = {*topology.topics}
    for each in topology.subscriptions:
        names |= {each.topic, *each.dead_letter_topics}
    found = {name for (name,) in await database.fetch(_TOPICS, [*names])}
    lacking = [f"topic {name}" for name in sorted(names - found)]
    lacking += [
        f"group {each.group} of topic {each.topic}"
        for each in topology.subscriptions
        if not each.broadcast and not await members.find_group(database, each.topic, each.group)
    ]
    return lacking


async def lag(database: Database, topic: str, name: str) -> Lag:
    """Returns how much of a topic a group has not finished. Raises TopologyError."""
    group = await members.find_group(database, topic, name)
    if group is None:
        raise TopologyError(f"group {name} of topic {topic} does not exist", code=TOPOLOGY_MISSING)
    places, finished = await _places(database, group)
    count, oldest = await positions.count_unread(database, group.topic, places)
    ((waiting, oldest_waiting, claimed, now),) = await database.fetch(_OTHERS, group.id)
    times = [each for each in (oldest, oldest_waiting) if each is not None]
    if claimed:
        ((oldest_claimed,),) = await database.fetch(_OLDEST_CLAIM, group.id, group.topic)
        times += [] if oldest_claimed is None else [oldest_claimed]
    messages = int(count) - finished + int(waiting) + int(claimed)
    age = max(0.0, now - min(times)) if times and messages else None
    return Lag(messages=messages, seconds=age)


async def _places(database: Database, group: Group) -> tuple[dict[int, Position], int]:
    """Where each bucket stands, and how many messages beyond are finished all the same."""
    if group.ordering is Ordering.NONE:
        ((base, opened, low, high, upto, seqs),) = await database.fetch(_CURSOR, group.id)
        return {
            bucket: Position(base, opened, low, high, upto, seqs[bucket])
            for bucket in range(BUCKETS)
        }, 0
    rows = await database.fetch(_PROGRESS, group.id)
    return {bucket: Position(*place) for bucket, *place, _ in rows}, sum(row[-1] for row in rows)
