"""Nothing is lost when processes, brokers and connections fail.

Each case publishes numbered messages over a hundred keys while something breaks, and then
counts. `PROTOFLOW_FAULTS=long` publishes 20,000 messages a case, otherwise it is 2,000.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import skip_or_fail
from tests.brokers.base import BrokerUnavailable, TestBroker, free_port
from tests.brokers.kafka import KafkaBroker
from tests.brokers.redis import RedisBroker
from tests.faults.dead_letter_topics import writable
from tests.faults.harness import Harness, harness
from tests.faults.ledger import Verdict
from tests.faults.proxy import FaultProxy

LONG = os.environ.get("PROTOFLOW_FAULTS") == "long"
COUNT = 20_000 if LONG else 2_000
#: The emulator of SNS and SQS looks through all of a queue for each request.
COUNTS = {"sqs": 1_000 if LONG else 500}
#: How a broker is started, if not as every other test starts it.
KINDS: dict[str, TestBroker] = {"redis": RedisBroker(fsync="always")}
#: A quorum queue that was declared within these seconds may not survive a killed RabbitMQ 3.10.
SETTLED = {"rabbitmq": 9.0}
#: How many messages may be unsettled in a consumer: so many copies one fault may make.
IN_FLIGHT = 256

Fault = Callable[[Harness], Coroutine[Any, Any, None]]


async def consumer_killed(run: Harness) -> None:
    """SIGKILL of the consumer under load, three times."""
    for _ in range(3):
        await asyncio.sleep(run.duration / 4)
        run.consumers[-1].kill()
        run.spawn()


async def consumers_come_and_go(run: Harness) -> None:
    """A rebalance storm: every second a consumer joins and one leaves."""
    end = time.monotonic() + run.duration
    while time.monotonic() < end:
        run.spawn()
        await asyncio.sleep(1.0)
        old = run.consumers.pop(0)
        await asyncio.to_thread(old.stop)


async def broker_killed(run: Harness) -> None:
    """SIGKILL of the broker, and its restart."""
    await asyncio.sleep(run.duration / 3)
    await run.broker_restart(kill=True)


async def broker_restarted(run: Harness) -> None:
    """The broker is shut down and started again."""
    await asyncio.sleep(run.duration / 3)
    await run.broker_restart(kill=False)


async def broker_stopped(run: Harness) -> None:
    """The broker freezes (SIGSTOP) for some seconds."""
    await asyncio.sleep(run.duration / 3)
    run.broker_signal(signal.SIGSTOP)
    await asyncio.sleep(5.0)
    run.broker_signal(signal.SIGCONT)


async def connection_cut(run: Harness) -> None:
    """The consumer's connection is cut, again and again."""
    for _ in range(4):
        await asyncio.sleep(run.duration / 5)
        run.note("fault")
        run.proxy.reset()


async def connection_refused(run: Harness) -> None:
    """The broker cannot be reached for some seconds."""
    await asyncio.sleep(run.duration / 3)
    run.note("fault")
    run.proxy.cut()
    await asyncio.sleep(3.0)
    run.proxy.restore()


async def connection_frozen(run: Harness) -> None:
    """The connection passes nothing for some seconds, but stays."""
    await asyncio.sleep(run.duration / 3)
    run.note("fault")
    run.proxy.freeze()
    await asyncio.sleep(5.0)
    run.note("fault")
    run.proxy.thaw()


async def connection_slow(run: Harness) -> None:
    """Every packet takes its time."""
    run.note("fault")
    run.proxy.delay(0.05)
    await asyncio.sleep(run.duration)
    run.proxy.delay(0.0)


async def dead_letters_unwritable(run: Harness) -> None:
    """The dead-letter topic takes nothing for a while: the subscription pauses and says so,
    nothing is acknowledged, and when the topic takes dead letters again all goes on."""
    topic = f"{run.run}.orders..sink..dead"
    await asyncio.sleep(run.duration / 4)
    await writable(run.name, run.url, topic, open=False)
    deadline = time.monotonic() + 30
    while run.consumers[-1].ready():
        assert time.monotonic() < deadline, "readiness never turned red"
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    assert run.consumers[-1].process.poll() is None, "the process died"
    await writable(run.name, run.url, topic, open=True)


async def slow_consumer(run: Harness) -> None:
    """Handlers are slower than the publisher: nothing is dropped, nothing is evicted."""
    await asyncio.sleep(0)


PROXIED = (connection_cut, connection_refused, connection_frozen, connection_slow)
ON_BROKERS = (
    consumer_killed, consumers_come_and_go, broker_killed, broker_restarted, broker_stopped,
    slow_consumer, dead_letters_unwritable, *PROXIED,
)  # fmt: skip
CASES = [(name, fault) for name in ("kafka", "rabbitmq", "jetstream") for fault in ON_BROKERS]
CASES += [
    ("redis", fault)
    for fault in ON_BROKERS
    if LONG or fault in (consumer_killed, broker_killed, connection_cut, dead_letters_unwritable)
]
CASES += [
    ("postgresql", fault)
    for fault in (ON_BROKERS if LONG else (consumer_killed, broker_killed, connection_cut))
]
CASES += [
    ("sqlite", consumer_killed),
    ("sqlite", consumers_come_and_go),
    ("sqlite", slow_consumer),
]
# The emulator of SNS and SQS keeps nothing over a restart, and HTTP has no broker.
CASES += [
    (name, fault)
    for name in ("sqs", "http")
    for fault in (consumer_killed, consumers_come_and_go, slow_consumer, *PROXIED)
    if LONG or fault is consumer_killed or (name == "http" and fault is connection_cut)
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "fault"), CASES, ids=[f"{name}-{fault.__name__}" for name, fault in CASES]
)
async def test_nothing_is_lost(
    name: str, fault: Fault, tmp_path: Path, record_verdict: Callable[[Verdict], None]
) -> None:
    random.seed(1)
    try:
        if fault in PROXIED:
            verdict = await _proxied(name, fault, tmp_path)
        else:
            with harness(name, tmp_path, COUNTS.get(name, COUNT), KINDS.get(name)) as run:
                verdict = await _run(run, fault)
    except BrokerUnavailable as error:
        skip_or_fail(name, error)
    record_verdict(verdict)
    assert verdict.published == COUNTS.get(name, COUNT)
    assert verdict.lost == 0, verdict
    assert verdict.order_violations == 0, verdict
    assert verdict.wrong_attempts == 0, verdict
    assert not verdict.disagreements, verdict
    assert verdict.ready, f"not alive and ready at the end: {verdict}"
    assert verdict.duplicates <= _in_doubt(fault), verdict


async def _proxied(name: str, fault: Fault, directory: Path) -> Verdict:
    """A run whose consumers, but not the publisher, reach the broker through a proxy."""
    if name != "kafka":
        with harness(name, directory, COUNTS.get(name, COUNT), KINDS.get(name)) as run:
            async with FaultProxy.to(run.consumer_url) as proxy:
                run.go_through(proxy)
                return await _run(run, fault)
    # Kafka advertises its address, so it must know the proxy from the start.
    port = free_port()
    async with FaultProxy("127.0.0.1", port) as proxy:
        with harness(name, directory, COUNT, KafkaBroker(proxied=(port, proxy.port))) as run:
            run.proxy, run.consumer_url = proxy, f"kafka://127.0.0.1:{proxy.port}"
            return await _run(run, fault)


async def _run(run: Harness, fault: Fault) -> Verdict:
    started = time.monotonic()
    if fault is slow_consumer:
        run.options["pace"] = 0.04 if COUNT < 10_000 else 0.01
    try:
        run.spawn()
        assert await run.until_ready(), _tail(run)
        if fault is broker_killed:
            await asyncio.sleep(SETTLED.get(run.name, 1.0))
        publishing = asyncio.create_task(run.publish())
        await fault(run)
        await publishing
        dead_letters = await run.settle()
        ready = await run.until_ready(30)
    finally:
        # In a thread: the proxy that the consumers drain through lives on this loop.
        await asyncio.to_thread(run.close)
    return run.verdict(fault.__name__, dead_letters, time.monotonic() - started, ready)


def _in_doubt(fault: Fault) -> int:
    """How many copies the fault can explain: what was unsettled when it struck."""
    if fault in (slow_consumer, connection_slow, dead_letters_unwritable):
        return 0
    times: dict[Fault, int] = {consumer_killed: 3, connection_cut: 4, consumers_come_and_go: 20}
    return IN_FLIGHT * times.get(fault, 2)


def _tail(run: Harness) -> str:
    return (run.directory / "consumer.log").read_text()[-2000:]
