"""Nothing is lost, and no order is broken, when nodes of a NATS cluster fail.

The short form runs in `make test`; `make faults` publishes more, and longer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from protoflow.transports.nats.names import JetStreamNames

from tests.brokers import skip_or_fail
from tests.brokers.base import BrokerUnavailable
from tests.brokers.nats_cluster import NatsCluster
from tests.faults.harness import Harness
from tests.faults.ledger import Verdict

LONG = os.environ.get("PROTOFLOW_FAULTS") == "long"
COUNT = 20_000 if LONG else 600
#: The lease of the consumers (tests/faults/consumer.py), and a stall that outlasts it.
LEASE = 6.0
STALL = LEASE * 1.4

Fault = Callable[[Harness, NatsCluster], Awaitable[None]]


async def leaders_move(run: Harness, cluster: NatsCluster) -> None:
    """The leaders of the stream and of its consumer step down, again and again."""
    stream = JetStreamNames("protoflow").stream(f"{run.run}.orders")
    end = time.monotonic() + run.duration
    while time.monotonic() < end:
        await asyncio.sleep(0.7)
        await cluster.move_leaders(stream, "sink")


async def node_lost(run: Harness, cluster: NatsCluster) -> None:
    """The node that leads the stream is killed, and comes back."""
    await asyncio.sleep(run.duration / 3)
    leader = await cluster.leader(JetStreamNames("protoflow").stream(f"{run.run}.orders")) or 0
    cluster.kill(leader)
    await asyncio.sleep(2.0)
    cluster.start(leader)


async def node_frozen(run: Harness, cluster: NatsCluster) -> None:
    """The node that leads the stream stops for some seconds, its connections stay."""
    await asyncio.sleep(run.duration / 3)
    leader = await cluster.leader(JetStreamNames("protoflow").stream(f"{run.run}.orders")) or 0
    cluster.signal(signal.SIGSTOP, leader)
    await asyncio.sleep(5.0)
    cluster.signal(signal.SIGCONT, leader)


async def quorum_lost(run: Harness, cluster: NatsCluster) -> None:
    """Two of three nodes are away for seconds: nobody leads anything."""
    await asyncio.sleep(run.duration / 3)
    cluster.kill(1, 2)
    await asyncio.sleep(10.0 if LONG else 5.0)
    cluster.start(1, 2)


async def loop_stalled(run: Harness, _: NatsCluster) -> None:
    """The consumer's event loop stands still for longer than its leases."""
    await asyncio.sleep(run.duration / 3)
    run.consumers[0].process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(STALL + 1.0)


async def process_frozen(run: Harness, _: NatsCluster) -> None:
    """Of two consumers the one that has the messages is frozen for longer than its leases; the
    other one takes over."""
    await asyncio.sleep(run.duration / 3)
    handled = (run.directory / "handled.log").read_text().splitlines()
    owner = next(c.process for c in run.consumers if str(c.process.pid) == handled[-1].split()[3])
    owner.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STALL)
    owner.send_signal(signal.SIGCONT)


SHORT: tuple[Fault, ...] = (leaders_move, quorum_lost, process_frozen)
FAULTS: tuple[Fault, ...] = (*SHORT, node_lost, node_frozen, loop_stalled) if LONG else SHORT


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    try:
        made = NatsCluster(tmp_path)
    except BrokerUnavailable as error:
        skip_or_fail("nats", error)
    try:
        made.start()
        await made.ready()
        yield made
    finally:
        made.stop()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
async def test_a_cluster_loses_nothing(
    fault: Fault,
    cluster: NatsCluster,
    tmp_path: Path,
    record_verdict: Callable[[Verdict], None],
) -> None:
    run = Harness("jetstream", cluster.url, tmp_path, COUNT)
    run.duration = 20.0 if LONG else 5.0
    started = time.monotonic()
    try:
        run.spawn(2 if fault is process_frozen else 1)
        assert await run.until_ready(), (tmp_path / "consumer.log").read_text()[-2000:]
        publishing = asyncio.create_task(run.publish())
        await fault(run, cluster)
        await publishing
        dead_letters = await run.settle()
        ready = await run.until_ready(30)
    finally:
        await asyncio.to_thread(run.close)
    verdict = run.verdict(
        f"cluster {fault.__name__}", dead_letters, time.monotonic() - started, ready
    )
    record_verdict(verdict)
    assert (verdict.published, verdict.lost) == (COUNT, 0), verdict
    assert verdict.order_violations == 0, verdict
    assert not verdict.disagreements, verdict
    assert verdict.ready, f"not alive and ready at the end: {verdict}"
