"""However much waits, nothing is read from beginning to end.

`make plans` takes a million messages and a million delayed ones.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Settlement

from tests.transports.postgresql.harness import (
    TestSchema,
    acknowledge,
    join,
    publish,
    settings_of,
    take,
)

LONG = os.environ.get("PROTOFLOW_PLANS") == "long"
#: The server considers a plan for all values after five executions on a connection.
TURNS = 24
COUNT = 1_000_000 if LONG else 40_000
_FILL = f"""
INSERT INTO {{s}}.log (slot, topic, bucket, seq, xid, due, key, head, payload, at)
SELECT 0, {{s}}.topic_id('orders'), n % 64, nextval('{{s}}.log_seq'), pg_current_xact_id(), 0,
  ('k' || n % 10000)::bytea, format('["m%s",{{}}]', n), 'x', {{s}}.now()
FROM generate_series(1, {COUNT}) AS g(n)
"""
_WAIT = f"""
INSERT INTO {{s}}.waiting (group_id, topic, bucket, due, key, head, payload, at)
SELECT g.id, g.topic, n % 64, {{s}}.now() + 3600 + n, NULL, '["w",{{}}]', 'x', {{s}}.now()
FROM {{s}}.groups g, generate_series(1, {COUNT}) AS s(n) WHERE g.topic = {{s}}.topic_id('orders')
"""
_SCANS = """
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE schemaname = $1 AND relname IN ('log_0', 'waiting')
"""


async def scans(database: TestSchema) -> dict[str, int]:
    """How often each large table was read from beginning to end."""
    await database.run("SELECT pg_stat_clear_snapshot()")
    return dict(map(tuple, await database.admin.fetch(_SCANS, database.schema)))


async def settled_scans(database: TestSchema) -> dict[str, int]:
    """The counts when the server has added what its processes did: they report once a second, and
    at their end."""
    before: dict[str, int] = {}
    while (now := await scans(database)) != before:
        before = now
        await asyncio.sleep(2.5)
    return now


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
@pytest.mark.timeout(2400 if LONG else 300)
async def test_claims_settlements_and_lag_use_indexes_only(
    place: TestSchema, ordering: Ordering
) -> None:
    """Also when statements were prepared and their plans no longer depend on values."""
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    await join(transport, settings_of(ordering, "quiet"))
    for statement in (_FILL, _WAIT):
        await place.run(statement)
    await place.run("ANALYZE {s}.log, {s}.waiting")
    await transport.close()  # its connections read empty tables, and have not reported all of it
    before = await settled_scans(place)
    transport = await place.open(connections=3)
    member = await join(transport, settings_of(ordering))
    await join(transport, settings_of(ordering, "quiet"))
    for _ in range(TURNS):
        held = await take(member, 50, within=600)
        retried = Settlement(held.pop(), Action.NACK, failures=1)
        await member.settle([retried])
        await acknowledge(member, held)
    # Of a topic with few messages; whoever counts a million rows reads a million rows.
    await publish(transport, 1, 2, 3, topic="quiet")
    for _ in range(TURNS):
        assert (await transport.lag("quiet", "billing")).messages == 3
    await transport.close()
    # Whoever takes buckets reads what waits in its group, which here is the whole table.
    before["waiting"] += ordering is Ordering.PER_KEY
    assert await settled_scans(place) == before
