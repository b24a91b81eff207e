"""However much waits, nothing is read from beginning to end.

`PROTOFLOW_PLANS=long` (`make test ARGS=tests/transports/postgresql/test_plans.py`) takes a million
messages.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from protoflow.contract.spec import Ordering

from tests.transports.postgresql.harness import TestSchema, acknowledge, join, settings_of, take

COUNT = 1_000_000 if os.environ.get("PROTOFLOW_PLANS") == "long" else 100_000
_FILL = f"""
INSERT INTO {{s}}.log (slot, topic, bucket, seq, xid, due, key, head, payload, at)
SELECT 0, {{s}}.topic_id('orders'), n % 64, nextval('{{s}}.log_seq'), pg_current_xact_id(), 0,
  ('k' || n % 10000)::bytea, format('["m%s",{{}}]', n), 'x', {{s}}.now()
FROM generate_series(1, {COUNT}) AS g(n)
"""
_WAIT = f"""
INSERT INTO {{s}}.waiting (group_id, topic, bucket, due, key, head, payload, at)
SELECT g.id, g.topic, n % 64, {{s}}.now() + 3600 + n, NULL, '["w",{{}}]', 'x', {{s}}.now()
FROM {{s}}.groups g, generate_series(1, {COUNT}) AS s(n)
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
    """The counts when the server has added what its processes did: they report once a second."""
    before: dict[str, int] = {}
    while (now := await scans(database)) != before:
        before = now
        await asyncio.sleep(2.5)
    return now


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
@pytest.mark.timeout(300)
async def test_claims_and_settlements_use_indexes_only(
    place: TestSchema, ordering: Ordering
) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    await place.run(_FILL)
    await place.run(_WAIT)
    await place.run("ANALYZE {s}.log, {s}.waiting")
    before = await settled_scans(place)
    for _ in range(3):
        await acknowledge(member, await take(member, 100, within=120))
    await transport.close()
    assert await scans(place) == before
