"""A Kafka that is away, refuses us, freezes or dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator

import pytest
from protoflow.errors import AuthenticationError, ConnectionFailedError, PublishError
from protoflow.message import Message, Settlement
from protoflow.testing import Listener
from protoflow.transport import Topology, TopologyMode

from tests.brokers import BrokerUnavailable, kind, skip_or_fail, start_own
from tests.brokers.base import RunningBroker, free_port
from tests.transports.kafka.harness import (
    ack,
    join,
    opened,
    payloads,
    publish,
    settings,
    take,
    transport,
    unique,
)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def own() -> Iterator[RunningBroker]:
    try:
        with start_own("kafka") as broker:
            if broker.source != "maven":
                pytest.skip("broker: kafka (Apache's own)")
            yield broker
    except BrokerUnavailable as error:
        skip_or_fail("kafka", error)


async def test_an_unreachable_broker_is_one_error_after_the_timeout() -> None:
    url = f"kafka://me:hunter2@127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ConnectionFailedError, match="cannot be reached within 1 s") as caught:
        await transport(url, connect_timeout=1.0).open()
    assert 0.9 <= time.monotonic() - started < 5
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_what_is_wrong_with_a_host_is_reported_with_what_to_look_at() -> None:
    port = free_port()
    url = f"kafka://127.0.0.1:{port},no-such-host.invalid:9092"
    with pytest.raises(ConnectionFailedError) as caught:
        await transport(url, connect_timeout=2.0).open()
    text = str(caught.value)
    assert f"127.0.0.1:{port}: no program listens there; check host and port" in text
    assert "no-such-host.invalid:9092: the name is unknown; check the host" in text


async def test_a_silent_first_host_keeps_no_other_waiting(own: RunningBroker) -> None:
    """A frozen machine accepts connections and says nothing."""
    connections = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    silent = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    host = own.url.partition("://")[2]
    topic = unique()
    try:
        async with asyncio.timeout(60):
            async with opened(f"kafka://127.0.0.1:{port},{host}", connect_timeout=40.0) as broker:
                subscription = await join(broker, settings(topic))
                await publish(broker, topic, b"x")
                assert payloads(await take(subscription, 1)) == [b"x"]
    finally:
        silent.close()
        for writer in connections:
            writer.close()


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_frozen_broker_holds_up_no_shutdown(own: RunningBroker, atomic: bool) -> None:
    topic = unique()
    broker = transport(own.url)
    await broker.open()
    subscription = await join(broker, settings(topic, atomic=atomic))
    await publish(broker, topic, b"0", b"1")
    held, other = await take(subscription, 2)
    await ack(subscription, held)
    own.signal(signal.SIGSTOP)
    try:
        settling = subscription.settle([Settlement(other)])
        started = time.monotonic()
        for step in (subscription.stop, broker.close):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await step()
        assert time.monotonic() - started < 12, "what is cancelled returns soon"
        async with asyncio.timeout(5):
            while _ours():
                await asyncio.sleep(0.1)
        settling.cancel()
    finally:
        own.signal(signal.SIGCONT)


def _ours() -> list[str]:
    """Tasks of the runtime and of aiokafka that still run."""
    names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    return [name for name in names if "kafka" in name.lower() and "test_" not in name]


async def test_credentials_reach_the_broker(own: RunningBroker) -> None:
    topic = unique()
    async with opened(own.details["sasl_url"]) as broker:
        subscription = await join(broker, settings(topic))
        await publish(broker, topic, b"x")
        await ack(subscription, *await take(subscription, 1))


async def test_bad_credentials_are_reported_at_once_and_without_them(own: RunningBroker) -> None:
    url = own.details["sasl_url"].replace("tester-secret", "hunter2")
    with pytest.raises(AuthenticationError) as caught:
        await transport(url).open()
    assert "hunter2" not in str(caught.value)


async def test_tls_reaches_the_broker(own: RunningBroker) -> None:
    topic = unique()
    options = {"tls_ca_file": own.details["ca_file"]}
    async with opened(own.details["tls_url"], options=options) as broker:
        subscription = await join(broker, settings(topic))
        await publish(broker, topic, b"x")
        assert payloads(await take(subscription, 1)) == [b"x"]


async def test_an_unknown_authority_is_an_error_at_once(own: RunningBroker) -> None:
    with pytest.raises(ConnectionFailedError, match="tls_ca_file"):
        await transport(own.details["tls_url"]).open()


async def test_a_frozen_broker_is_noticed_and_publishing_gives_up(own: RunningBroker) -> None:
    topic = unique()
    options = {"publish_timeout": 2.0, "health_interval": 0.5}
    async with opened(own.url, options=options) as broker:
        listener = Listener()
        await join(broker, settings(topic), listener)
        await publish(broker, topic, b"0")
        own.signal(signal.SIGSTOP)
        try:
            (result,) = await broker.submit([Message(id="1", topic=topic, payload=b"1")])
            assert isinstance(result, PublishError)
            assert broker.health() is not None
            assert [healthy for healthy, _ in listener.health] == [False]
        finally:
            own.signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while broker.health() is not None or len(listener.health) < 2:
                await asyncio.sleep(0.1)


async def test_a_killed_broker_loses_nothing_that_was_confirmed(own: RunningBroker) -> None:
    topic = unique()
    assert own.directory is not None
    assert own.process is not None
    port = int(own.url.rpartition(":")[2])
    async with opened(own.url) as broker:
        subscription = await join(broker, settings(topic))
        await broker.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
        await publish(broker, topic, *[b"%d" % number for number in range(50)])
        first = await take(subscription, 50)
        await ack(subscription, *first[:20])
        async with asyncio.timeout(60):  # committed by interval
            while (await broker.lag(topic, "billing")).messages > 30:
                await asyncio.sleep(0.1)
        own.signal(signal.SIGKILL)
        own.process.wait()
        waiting = broker.submit([Message(id="while-away", topic=topic, payload=b"50")])
        loop = asyncio.get_running_loop()
        again = await loop.run_in_executor(None, kind("kafka").start, own.directory, port)
        own.process = again.process
        assert await waiting == [None]
        # A member whose session ended meanwhile gets again what was not committed.
        held = {delivery.message.payload: delivery for delivery in first[20:]}
        while b"50" not in held:
            (late,) = await take(subscription, 1, within=60)
            held[late.message.payload] = late
        done = [held[b"%d" % number] for number in (*range(20, 40), 50)]
        await subscription.settle([Settlement(delivery) for delivery in done])
    async with opened(own.url) as broker:
        subscription = await join(broker, settings(topic))
        seen: set[bytes] = set()
        while not seen >= {b"%d" % number for number in range(40, 50)}:
            seen.update(payloads(await take(subscription, 1, within=60)))
        assert not seen & {b"%d" % number for number in range(20)}
