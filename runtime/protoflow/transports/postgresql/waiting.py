"""Rows that wait for a group: retries, replays and delayed messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InWaiting
from protoflow.transports.postgresql.rows import read_delivery

_CLAIM = """
UPDATE {s}.waiting SET member = $2, deliveries = deliveries + 1 WHERE id IN (
  SELECT id FROM {s}.waiting WHERE group_id = $1 AND member IS NULL AND due <= (SELECT {s}.now())
    AND ($4::int[] IS NULL OR bucket = ANY ($4::int[]) OR coalesce(seq, id) = ANY ($5::int8[]))
  ORDER BY due, id LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING id, bucket, seq, deliveries, failures, first_failure, marks, key, head, payload, at
"""
_LOCK = """
SELECT id, pg_current_xact_id()::text FROM {s}.waiting
WHERE id = ANY ($1::int8[]) AND member = $2 FOR UPDATE
"""
_GIVE_BACK = """
UPDATE {s}.waiting w SET member = NULL, due = {s}.now() + u.delay, failures = u.failures,
  first_failure = u.first, deliveries = w.deliveries - u.uncounted
FROM unnest($1::int8[], $2::float8[], $3::int[], $4::float8[], $5::int[])
  AS u(id, delay, failures, first, uncounted) WHERE w.id = u.id
"""
_KEEP = """
UPDATE {s}.waiting w SET due = {s}.now() + u.delay, failures = u.failures, first_failure = u.first
FROM unnest($1::int8[], $2::float8[], $3::int[], $4::float8[]) AS u(id, delay, failures, first)
WHERE w.id = u.id
"""
_COPY = """
INSERT INTO {s}.waiting
  (group_id, topic, bucket, seq, due, deliveries, failures, first_failure, key, head, payload, at)
SELECT $1, l.topic, l.bucket, l.seq, {s}.now() + u.delay, u.deliveries, u.failures, u.first,
  l.key, l.head, l.payload, l.at
FROM unnest($3::int[], $4::int8[], $5::float8[], $6::int[], $7::int[], $8::float8[])
  AS u(bucket, seq, delay, deliveries, failures, first)
JOIN {s}.log l ON l.topic = $2 AND l.bucket = u.bucket AND l.seq = u.seq
"""


async def claim(
    database: Database,
    connection: Connection,
    group: tuple[int, str],
    member: int,
    most: int,
    *,
    turn: int,
    buckets: Sequence[int] | None = None,
    positions: Sequence[int] = (),
) -> list[Delivery]:
    """Claims rows that are due for a group, given by id and topic: of buckets (None: of all),
    and at positions."""
    rows = await connection.fetch(database.sql(_CLAIM), group[0], member, most, buckets, positions)
    found = [_delivery(group[1], row, turn) for row in rows]
    found.sort(key=lambda delivery: delivery.position)
    return found


def _delivery(topic: str, row: Sequence[Any], turn: int) -> Delivery:
    id, bucket, seq, deliveries, failures, first_failure, marks, *content = row
    receipt, position = InWaiting(id, bucket, turn), id if seq is None else seq
    delivery = read_delivery(
        topic, bucket, position, content, receipt=receipt, deliveries=deliveries
    )
    delivery.own_place = seq is None  # nobody but a replay writes such a row
    delivery.failures = failures
    delivery.first_failure = first_failure
    delivery.suspect = marks > 0
    return delivery


async def lock(
    database: Database, connection: Connection, ids: Sequence[int], member: int
) -> tuple[set[int], str]:
    """Returns which rows the member holds, and the id of the transaction."""
    rows = await connection.fetch(database.sql(_LOCK), ids, member) if ids else ()
    return {row[0] for row in rows}, rows[0][1] if rows else ""


async def settle(
    database: Database,
    connection: Connection,
    settlements: Sequence[tuple[int, Settlement]],
    *,
    keep: bool = False,
) -> None:
    """Settles rows, each with its id; with `keep`, the member still holds returned rows."""
    done = [id for id, each in settlements if each.action is Action.ACK]
    back = [(id, each) for id, each in settlements if each.action is not Action.ACK]
    if done:
        await connection.execute(
            database.sql("DELETE FROM {s}.waiting WHERE id = ANY ($1::int8[])"), done
        )
    if back:
        values: list[Any] = [
            [id for id, _ in back],
            [each.delay for _, each in back],
            [each.failures for _, each in back],
            [each.first_failure for _, each in back],
        ]
        if not keep:
            values.append([int(each.action is Action.RELEASE) for _, each in back])
        await connection.execute(database.sql(_KEEP if keep else _GIVE_BACK), *values)


async def set_aside(
    database: Database,
    connection: Connection,
    group: tuple[int, int],
    delayed: Sequence[tuple[int, int, float]],
) -> None:
    """Copies delayed messages of the log, each with bucket, number and seconds to wait."""
    size = len(delayed)
    await connection.execute(
        database.sql(_COPY),
        *group,
        [bucket for bucket, _, _ in delayed],
        [seq for _, seq, _ in delayed],
        [seconds for _, _, seconds in delayed],
        *([0] * size, [0] * size, [0.0] * size),
    )


async def move(
    database: Database,
    connection: Connection,
    group: tuple[int, int],
    delayed: Sequence[tuple[Delivery, float]],
) -> None:
    """Copies deliveries of the log that were not handed out, each with seconds to wait."""
    found = [delivery for delivery, _ in delayed]
    await connection.execute(
        database.sql(_COPY),
        *group,
        [each.receipt.bucket for each in found],
        [each.receipt.seq for each in found],
        [seconds for _, seconds in delayed],
        [each.deliveries - 1 for each in found],
        [each.failures for each in found],
        [each.first_failure for each in found],
    )


async def copy(
    database: Database,
    connection: Connection,
    group: tuple[int, int],
    settlements: Sequence[tuple[tuple[int, int], Settlement]],
) -> None:
    """Copies messages of the log, each with bucket and number, so that the group, given by its
    id and its topic's, gets them again."""
    await connection.execute(
        database.sql(_COPY),
        *group,
        [bucket for (bucket, _), _ in settlements],
        [seq for (_, seq), _ in settlements],
        [each.delay for _, each in settlements],
        [each.delivery.deliveries - (each.action is Action.RELEASE) for _, each in settlements],
        [each.failures for _, each in settlements],
        [each.first_failure for _, each in settlements],
    )
