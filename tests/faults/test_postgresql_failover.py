"""What a primary, its standby and its operator do to a service on PostgreSQL.

The short form runs in `make test`; `make faults` publishes more, and longer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable, RunningBroker
from tests.brokers.postgresql_standby import PostgresStandby
from tests.faults.harness import Harness
from tests.faults.ledger import Verdict

LONG = os.environ.get("PROTOFLOW_FAULTS") == "long"
COUNT = 20_000 if LONG else 600
_END_ALL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_IN_LOG = """
SELECT l.head::json->>0 FROM protoflow.log l JOIN protoflow.topics t ON t.id = l.topic
WHERE t.name = $1
"""


@asynccontextmanager
async def operator(url: str) -> Any:
    """A connection of an operator, which may write to a read-only server."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute("SET statement_timeout = 0")
    try:
        yield connection
    finally:
        await connection.close()


async def set_server(url: str, *settings: str) -> None:
    """Sets or resets settings of a server, which takes them at once."""
    async with operator(url) as connection:
        for setting in settings:
            await connection.execute(f"ALTER SYSTEM {setting}")
        await connection.execute("SELECT pg_reload_conf()")


@dataclass
class Pair:
    """A primary and its standby."""

    primary: RunningBroker
    standby: RunningBroker

    @property
    def url(self) -> str:
        """Both, as Protoflow takes it."""
        base, _, path = self.primary.url.rpartition("/")
        host = self.standby.url.rpartition("@")[2].partition("/")[0]
        return f"{base},{host}/{path}"

    async def fail_over(self) -> None:
        """The primary is killed, and the standby promoted."""
        assert self.primary.process is not None
        self.primary.process.kill()
        self.primary.process.wait()
        async with operator(self.standby.url) as connection:
            assert await connection.fetchval("SELECT pg_promote(true)")


Fault = Callable[[Harness, Pair], Awaitable[None]]


async def primary_lost(run: Harness, pair: Pair) -> None:
    """SIGKILL of the primary; the standby, which has all confirmed messages, is promoted."""
    await set_server(pair.primary.url, "SET synchronous_standby_names = '*'")
    await asyncio.sleep(run.duration / 3)
    await pair.fail_over()


async def standby_behind(run: Harness, pair: Pair) -> None:
    """The standby that is promoted lacks the last second of its primary."""
    await asyncio.sleep(run.duration / 3)
    await set_server(pair.standby.url, "SET primary_conninfo = ''")
    await asyncio.sleep(1.0)
    await pair.fail_over()


async def read_only(run: Harness, pair: Pair) -> None:
    """The primary refuses all writes for three seconds: 25006."""
    await asyncio.sleep(run.duration / 3)
    await set_server(pair.primary.url, "SET default_transaction_read_only = on")
    await asyncio.sleep(3.0)
    await set_server(pair.primary.url, "RESET default_transaction_read_only")


async def connections_ended(run: Harness, pair: Pair) -> None:
    """An operator ends all connections, again and again: 57P01."""
    for _ in range(6):
        await asyncio.sleep(run.duration / 7)
        async with operator(pair.primary.url) as connection:
            assert await connection.fetchval(_END_ALL) > 0


async def statements_time_out(run: Harness, pair: Pair) -> None:
    """For two seconds the server cancels each statement that takes a millisecond: 57014."""
    await asyncio.sleep(run.duration / 3)
    await set_server(pair.primary.url, "SET statement_timeout = '1ms'")
    await asyncio.sleep(2.0)
    await set_server(pair.primary.url, "RESET statement_timeout")


FAULTS: tuple[Fault, ...] = (
    primary_lost, standby_behind, read_only, connections_ended, statements_time_out,
)  # fmt: skip


@pytest.fixture
def pair() -> Iterator[Pair]:
    try:
        with (
            start_own("postgresql") as primary,
            start_own(PostgresStandby(primary.url)) as standby,
        ):
            yield Pair(primary, standby)
    except BrokerUnavailable as error:
        skip_or_fail("postgresql", error)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
async def test_a_failover_loses_nothing_that_the_server_has(
    fault: Fault, pair: Pair, tmp_path: Path, record_verdict: Callable[[Verdict], None]
) -> None:
    run = Harness("postgresql", pair.url, tmp_path, COUNT)
    run.duration = 20.0 if LONG else 5.0
    started = time.monotonic()
    try:
        run.spawn()
        assert await run.until_ready(), (tmp_path / "consumer.log").read_text()[-2000:]
        publishing = asyncio.create_task(run.publish())
        await fault(run, pair)
        await publishing
        if fault is standby_behind:
            await forget_lost(run, pair)
        dead_letters = await run.settle()
        ready = await run.until_ready(30)
    finally:
        await asyncio.to_thread(run.close)
    seconds = time.monotonic() - started
    verdict = run.verdict(f"failover {fault.__name__}", dead_letters, seconds, ready)
    record_verdict(verdict)
    if fault is not standby_behind:
        assert verdict.published == COUNT, verdict
    assert verdict.lost == 0, verdict
    assert verdict.order_violations == 0, verdict
    assert verdict.ready, f"not alive and ready at the end: {verdict}"


async def forget_lost(run: Harness, pair: Pair) -> None:
    """Takes from the published messages those that the standby never got."""
    async with operator(pair.standby.url) as connection:
        rows = await connection.fetch(_IN_LOG, f"{run.run}.orders")
    kept = {row[0] for row in rows}
    run.published = {id: mode for id, mode in run.published.items() if id in kept}
    assert len(run.published) > COUNT / 2
