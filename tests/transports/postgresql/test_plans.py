"""However much waits, nothing is read from beginning to end.

`make plans` takes a million messages, a million delayed ones and a million dead letters.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Settlement

from tests.transports.postgresql.harness import TestSchema, acknowledge, join, settings_of, take

LONG = os.environ.get("PROTOFLOW_PLANS") == "long"
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
FROM {{s}}.groups g, generate_series(1, {COUNT}) AS s(n)
"""
_DIE = f"""
INSERT INTO {{s}}.dead_letters (topic, message, key, head, payload, at)
SELECT {{s}}.topic_id('orders..billing..dead'), n::text::bytea, NULL, '["d",{{}}]', 'x', {{s}}.now()
FROM generate_series(1, {COUNT}) AS s(n)
"""
_SCANS = """
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE schemaname = $1 AND relname IN ('log_0', 'waiting', 'dead_letters')
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
@pytest.mark.timeout(2400 if LONG else 300)
async def test_claims_settlements_and_lag_use_indexes_only(
    place: TestSchema, ordering: Ordering
) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    for statement in (_FILL, _WAIT, _DIE):
        await place.run(statement)
    await place.run("ANALYZE {s}.log, {s}.waiting, {s}.dead_letters")
    before = await settled_scans(place)
    for turn in range(3):
        held = await take(member, 100, within=600)
        first, *rest = held
        if turn == 0:  # a retry that waits elsewhere, and a dead letter
            await member.settle([Settlement(first, Action.NACK, delay=0.0, failures=1)])
            held = rest
        await acknowledge(member, held)
    lag = await transport.lag("orders", "billing")
    assert 2 * COUNT - 300 <= lag.messages < 2 * COUNT
    async with transport.dead_letters.scan("orders..billing..dead") as scan:
        assert len(await scan.take(10)) == 10
    await transport.close()
    assert await scans(place) == before
