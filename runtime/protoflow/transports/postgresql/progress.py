"""Writing down how far the buckets of an ordered group are, and which messages failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protoflow.message import Settlement
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import InBucket

_MOVE = """
UPDATE {s}.progress p SET base = u.base::pg_snapshot, open = u.open::pg_snapshot, low = u.low,
  high = u.high, upto = u.upto, seq = u.seq, done = u.done::int8[]
FROM unnest($2::int[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
  $9::text[]) AS u(bucket, base, open, low, high, upto, seq, done)
WHERE p.group_id = $1 AND p.bucket = u.bucket
"""
_CALM = "UPDATE {s}.owners SET crashes = 0 WHERE group_id = $1 AND bucket = ANY ($2::int[])"
_FAIL = """
INSERT INTO {s}.failures (group_id, seq, bucket, failures, first_failure, due)
SELECT $1, u.seq, u.bucket, u.failures, u.first, {s}.now() + u.delay
FROM unnest($2::int8[], $3::int[], $4::int[], $5::float8[], $6::float8[])
  AS u(seq, bucket, failures, first, delay)
ON CONFLICT (group_id, seq) DO UPDATE SET failures = excluded.failures,
  first_failure = excluded.first_failure, due = excluded.due
"""
_FORGET = "DELETE FROM {s}.failures WHERE group_id = $1 AND seq = ANY ($2::int8[])"


async def move(
    database: Database,
    connection: Connection,
    group: int,
    finished: Mapping[Bucket, set[int]],
) -> None:
    """Writes the positions of buckets in which messages are finished."""
    rows, calm = [], []
    for bucket, seqs in finished.items():
        position, done = bucket.progress(seqs)
        rows.append((bucket.number, *position, f"{{{','.join(map(str, done))}}}"))
        if bucket.crashes and position != bucket.progress(())[0]:
            calm.append(bucket.number)
    if rows:
        columns = [[*column] for column in zip(*rows, strict=True)]
        await connection.execute(database.sql(_MOVE), group, *columns)
    if calm:
        await connection.execute(database.sql(_CALM), group, calm)


async def forget(
    database: Database, connection: Connection, group: int, seqs: Sequence[int]
) -> None:
    """Removes what is known of messages that are finished."""
    if seqs:
        await connection.execute(database.sql(_FORGET), group, seqs)


async def fail(
    database: Database,
    connection: Connection,
    group: int,
    failed: Sequence[tuple[InBucket, Settlement]],
) -> None:
    """Keeps the failed runs and waits of messages."""
    if failed:
        await connection.execute(
            database.sql(_FAIL),
            group,
            [receipt.seq for receipt, _ in failed],
            [receipt.bucket for receipt, _ in failed],
            [each.failures for _, each in failed],
            [each.first_failure for _, each in failed],
            [each.delay for _, each in failed],
        )
