"""The table `protoflow_outbox` in each database, and the statements that write to it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import count
from typing import Final

from protoflow.database import Dialect, Insertion, adapt
from protoflow.message import Message
from protoflow.outbox.entries import entry_of

#: Messages of one key have the same bucket; one relay at a time publishes a bucket.
BUCKETS: Final = 32

SQLITE: Final = """CREATE TABLE IF NOT EXISTS protoflow_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, topic TEXT NOT NULL,
    payload BLOB, key BLOB, metadata TEXT NOT NULL, due REAL NOT NULL, stored REAL NOT NULL,
    parked TEXT)"""

POSTGRESQL: Final = f"""CREATE TABLE IF NOT EXISTS protoflow_outbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, bucket smallint NOT NULL,
    xid xid8 NOT NULL, id text NOT NULL, topic text NOT NULL, payload bytea, key bytea,
    metadata text NOT NULL, due float8 NOT NULL, stored float8 NOT NULL, parked text);
CREATE INDEX IF NOT EXISTS protoflow_outbox_xid ON protoflow_outbox (xid);
CREATE INDEX IF NOT EXISTS protoflow_outbox_parked ON protoflow_outbox (position)
    WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS protoflow_outbox_relays (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, lease_until float8 NOT NULL);
CREATE TABLE IF NOT EXISTS protoflow_outbox_buckets (bucket smallint PRIMARY KEY, relay bigint);
INSERT INTO protoflow_outbox_buckets SELECT generate_series(0, {BUCKETS - 1})
    ON CONFLICT DO NOTHING;
"""

#: A relay and an inbox that create the tables at the same time wait for each other.
POSTGRESQL_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('protoflow_outbox'))"

_INTO_SQLITE: Final = """INSERT INTO protoflow_outbox
    (id, topic, payload, key, metadata, due, stored) VALUES ($1, $2, $3, $4, $5, $6, $7)"""

# The transaction gets its id before a position is assigned: the relay's cursor needs this.
_INTO_POSTGRESQL: Final = """WITH own AS MATERIALIZED (SELECT pg_current_xact_id() AS xid)
INSERT INTO protoflow_outbox (bucket, xid, id, topic, payload, key, metadata, due, stored)
SELECT e.bucket, own.xid, e.id, e.topic, e.payload, e.key, e.metadata, e.due, e.stored
FROM own, unnest($1::smallint[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::text[],
    $7::float8[], $8::float8[])
    WITH ORDINALITY AS e(bucket, id, topic, payload, key, metadata, due, stored, number)
ORDER BY e.number"""

_keyless = count()


def insertion(dialect: Dialect, messages: Sequence[Message]) -> Insertion:
    """Returns the statement that writes messages to the outbox.

    Raises:
        PublishRefusedError: a message cannot be stored.
    """
    entries = [entry_of(message) for message in messages]
    if dialect == "sqlite":
        return Insertion(_INTO_SQLITE, entries)
    buckets = [
        zlib.crc32(entry.key) % BUCKETS if entry.key else next(_keyless) % BUCKETS
        for entry in entries
    ]
    columns = [list(column) for column in zip(*entries, strict=True)]
    return Insertion(_INTO_POSTGRESQL, [(buckets, *columns)] if entries else [])


def schema(dialect: Dialect) -> str:
    """Returns the statements that create the tables, for migrations; each can be repeated."""
    return SQLITE if dialect == "sqlite" else POSTGRESQL


async def store_in(connection: object, messages: Sequence[Message]) -> None:
    """Writes messages in the open transaction of a connection. Raises PublishRefusedError."""
    adapted = await adapt(connection)
    await adapted.execute_many(*insertion(adapted.dialect, messages))
