"""Where a group stands in the log of a topic.

A sequence has gaps, and transactions commit in another order than they took their numbers. So a
group reads the log in batches. A batch holds what the snapshot `open` sees and the snapshot `base`,
with which the batch before was opened, does not. Within a batch the order is that of `seq`.

Before a batch is opened, `upto` is read from the sequence, and then a transaction that has an id is
committed. It has a higher id than whoever took a number up to `upto`. So the next batch finds such
a row by the list of transactions that ran (`xip`), and all others above `upto`; long transactions
hold nobody up. A transaction's id is assigned before it takes a number (see `publish`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from protoflow.transports.postgresql.database import Database

_UPTO = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS upto FROM {s}.log_seq"
# The row of the first query exists before the transaction gets its id.
_RAISE = f"""
WITH before AS MATERIALIZED ({_UPTO})
SELECT before.upto, pg_current_xact_id()::text, set_config('synchronous_commit', 'off', true)
FROM before
"""  # noqa: S608  constants
OPEN = f"SELECT {{snapshot}}::text, ({_UPTO})"
_OPEN_AT = f"{OPEN}, pg_postmaster_start_time()::text"


class Position(NamedTuple):
    """A batch, and the number after which it must still be read."""

    base: str
    open: str
    low: int
    high: int
    upto: int
    seq: int


class Opening(NamedTuple):
    """What a batch is opened with, and when the server started."""

    open: str
    high: int
    upto: int
    server: str = ""


#: Before everything.
START = Position("1:1:", "1:1:", 0, 0, 0, 0)


def next_batch(position: Position, opening: Opening) -> Position:
    """Returns the batch that follows."""
    upto = max(position.upto, opening.upto)
    return Position(position.open, opening.open, position.upto, opening.high, upto, 0)


def end(opening: Opening) -> Position:
    """Returns the position behind everything that an opening sees."""
    return Position(opening.open, opening.open, opening.upto, 0, opening.upto, opening.high)


def is_ahead(position: Position, opened: str) -> bool:
    """Whether a position knows transactions that a snapshot of the server does not."""
    return int(position.open.split(":")[1]) > int(opened.split(":")[1])


async def raise_ids(database: Database) -> int:
    """Returns `upto`, below which no transaction with a later id can have a number."""
    ((upto, _, _),) = await database.fetch(_RAISE)
    return int(upto)


async def open_batch(database: Database) -> Opening:
    """Opens a batch."""
    upto = await raise_ids(database)
    ((opened, high, server),) = await database.fetch(_OPEN_AT)
    return Opening(opened, high, upto, server)


async def look(database: Database) -> tuple[str, int]:
    """Returns a snapshot and the last number: if both stay the same, nothing was committed."""
    ((opened, high),) = await database.fetch(OPEN)
    return opened, high


class Seen(NamedTuple):
    """What the log looked like when nothing of it was left to be read: a number, and a snapshot
    that was taken after it."""

    high: int
    snapshot: str


_SINCE = """
SELECT EXISTS (SELECT 1 FROM {s}.log WHERE topic = $1 AND bucket = ANY ($2::int[]) AND seq > $3)
  OR EXISTS (SELECT 1 FROM {s}.log WHERE xid = ANY ($4::text[]::xid8[]) AND topic = $1),
  {snapshot}::text
"""


async def look_again(
    database: Database, topic: int, buckets: Sequence[int], seen: Seen
) -> Seen | None:
    """Returns what there is to be seen if a topic has nothing new; None: something was committed.

    The number stays that of the opening: nobody has raised the ids since, so a transaction that has
    taken a later one may run above the snapshot, and no list names it.
    """
    running = [xid for xid in seen.snapshot.split(":")[2].split(",") if xid]
    ((found, snapshot),) = await database.fetch(_SINCE, topic, buckets, seen.high, running)
    return None if found else Seen(seen.high, snapshot)


READ = """
SELECT bucket, seq, CASE WHEN due > 0 THEN due - {s}.now() ELSE 0 END, key, head, payload, at
FROM {s}.read_log($1, $2, $3::text[]::pg_snapshot[],
  $4::text[]::pg_snapshot[], $5, $6, $7, $8)
"""


# What no batch so far holds, and what the batch has left.
_COUNT = """
SELECT coalesce(sum(c.n), 0)::int8, min(c.oldest) FROM
  unnest($2::int[], $3::text[]::pg_snapshot[], $4::text[]::pg_snapshot[], $5::int8[], $6::int8[])
    AS b(bucket, base, open, low, seq),
  LATERAL (SELECT count(*) AS n, min(l.at) AS oldest FROM (
    SELECT seq, xid, due, at FROM {s}.log WHERE topic = $1 AND bucket = b.bucket AND seq > b.low
      AND xid >= pg_snapshot_xmax(b.base)
    UNION ALL
    SELECT l.seq, l.xid, l.due, l.at FROM pg_snapshot_xip(b.base) AS ran(xid)
      JOIN {s}.log l ON l.xid = ran.xid AND l.topic = $1 AND l.bucket = b.bucket) l
    WHERE NOT (l.seq <= b.seq AND pg_visible_in_snapshot(l.xid, b.open)) AND l.due <= $7) c
"""


async def count_unread(
    database: Database, topic: int, places: Mapping[int, Position], due: float = math.inf
) -> tuple[int, float | None]:
    """Returns how many messages that are due at a time lie beyond the positions of buckets, and
    when the oldest came."""
    found = places.values()
    ((count, oldest),) = await database.fetch(
        _COUNT,
        topic,
        [*places],
        [place.base for place in found],
        [place.open for place in found],
        [place.low for place in found],
        [place.seq for place in found],
        due,
    )
    return count, oldest
