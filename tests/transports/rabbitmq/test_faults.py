"""RabbitMQ hurt: connections cut, frozen and refused, the server stopped and killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiormq.exceptions
import pytest
from protoflow.clock import Clock
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.errors import ConfigError, ConnectionFailedError, PublishError
from protoflow.message import Settlement, SettleResult
from protoflow.transport import TransportSettings
from protoflow.transports import create
from protoflow.transports.rabbitmq.consumers import Consumers
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.session import Session
from protoflow.transports.rabbitmq.transport import RabbitMQTransport

from tests.acceptance.targets import TARGETS
from tests.brokers import skip_or_fail, start_own, url_of, url_or_skip
from tests.brokers.base import BrokerUnavailable, RunningBroker
from tests.brokers.rabbitmq import RabbitMQBroker
from tests.faults.proxy import FaultProxy
from tests.transports.rabbitmq.harness import Harness, payloads

pytestmark = pytest.mark.timeout(120)


class Straight(Clock):
    """A clock that draws the order in which hosts stand."""

    def random(self) -> float:
        return 1.0 - 1e-9


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    url = url_or_skip("rabbitmq")
    async with FaultProxy.to(url) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def connected(url: str, tmp_path: Path, **options: Any) -> AsyncIterator[Harness]:
    harness = Harness(TARGETS["rabbitmq"], url, tmp_path)
    harness.transport = await harness.connect(**options)
    try:
        yield harness
    finally:
        await harness.close()


async def until(condition: Any, *, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


class TestCuts:
    async def test_the_consumer_is_back_and_what_it_had_is_lost(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            await harness.send(topic, b"0", b"1", b"2")
            zero, one = await member.take(2)
            proxy.cut()
            await until(lambda: member.listener.healthy == [False])
            assert harness.transport.health() is not None
            assert member.listener.lost == [zero, one]
            assert await member.settle(Settlement(zero)) == [SettleResult.LOST]
            proxy.restore()
            again = await member.take(3)
            assert payloads(again) == [b"0", b"1", b"2"]
            assert [delivery.deliveries for delivery in again] == [2, 2, 2]
            await until(lambda: member.listener.healthy == [False, True])
            await until(lambda: harness.transport.health() is None)
            await member.ack(*again)

    async def test_many_cuts_lose_nothing(self, proxy: FaultProxy, tmp_path: Path) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic, max_in_flight=20)
            seen: set[bytes] = set()

            async def consume() -> None:
                while True:
                    batch = await member.subscription.receive(5, 1 << 20)
                    seen.update(payloads(batch))
                    # LOST may be done or not: what is not comes again.
                    await member.subscription.settle([*map(Settlement, batch)])

            async def publish(number: int) -> None:
                message = harness.message(topic, b"%d" % number, mandatory=True)
                while (await harness.transport.submit([message]))[0] is not None:
                    await asyncio.sleep(0.02)

            consuming = asyncio.create_task(consume())
            for cut in range(5):
                publishing = [publish(cut * 40 + number) for number in range(40)]
                tasks = [asyncio.create_task(each) for each in publishing]
                await asyncio.sleep(0.1)
                proxy.cut_after(2000 * cut)
                await asyncio.gather(*tasks)
            await until(lambda: len(seen) == 200, within=40)
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)

    async def test_what_was_not_confirmed_is_an_error_and_later_ones_wait(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            await harness.join(topic)
            proxy.freeze()
            unknown = harness.transport.submit([harness.message(topic, b"unknown")])
            await asyncio.sleep(0.1)
            proxy.cut()
            proxy.thaw()
            [error] = await unknown
            assert isinstance(error, PublishError)
            assert "unknown" in str(error)
            waiting = harness.transport.submit([harness.message(topic, b"later")])
            await asyncio.sleep(0.3)
            assert not waiting.done()
            proxy.restore()
            assert await waiting == [None]

    async def test_what_cannot_be_sent_in_time_is_an_error(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path, confirm_timeout=0.5) as harness:
            proxy.cut()
            await until(lambda: harness.transport.health() is not None)
            started = time.monotonic()
            [error] = await harness.transport.submit([harness.message(harness.topic(), b"x")])
            assert isinstance(error, PublishError)
            assert "within 0.5 s" in str(error)
            assert time.monotonic() - started < 5

    async def test_settlements_on_their_way_are_lost_with_the_channel(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            await harness.send(topic, b"x")
            (delivery,) = await member.take(1)
            proxy.freeze()
            settling = member.subscription.settle([Settlement(delivery)])
            await asyncio.sleep(0.1)
            assert not settling.done()  # an ack that was only written is not done
            proxy.cut()
            proxy.thaw()
            assert await settling == [SettleResult.LOST]  # no repetition could help
            assert member.listener.lost == []

    async def test_a_black_hole_is_noticed_by_heartbeat(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path, heartbeat=1) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            proxy.freeze()
            await until(lambda: member.listener.healthy == [False])
            proxy.cut()
            proxy.thaw()
            proxy.restore()
            await until(lambda: member.listener.healthy == [False, True])
            await until(lambda: harness.transport.health() is None)
            await harness.send(topic, b"x")
            assert payloads(await member.take(1)) == [b"x"]

    async def test_order_holds_over_a_cut(self, proxy: FaultProxy, tmp_path: Path) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic, ordering=Ordering.PER_KEY)
            await harness.send(topic, *(b"%d" % number for number in range(20)), key=b"k")
            taken = await member.take(8)
            await member.ack(*taken[:3])
            proxy.reset()
            await until(lambda: member.listener.healthy == [False, True])
            again = await member.take(17)
            assert payloads(again) == [b"%d" % number for number in range(3, 20)]

    async def test_closing_does_not_hang_without_a_server(
        self, proxy: FaultProxy, tmp_path: Path
    ) -> None:
        async with connected(proxy.url, tmp_path, confirm_timeout=1) as harness:
            member = await harness.join(harness.topic())
            proxy.cut()
            harness.transport.submit([harness.message(harness.topic(), b"x")])
            async with asyncio.timeout(10):
                await member.subscription.stop()
                await harness.close()

    async def test_a_server_that_accepts_and_says_nothing_is_an_error_in_time(
        self, proxy: FaultProxy
    ) -> None:
        proxy.freeze()
        url = TransportURL.parse(proxy.url)
        transport = create(TransportSettings(url=url, connect_timeout=1.0))
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionFailedError, match="within 1 s"):
                await transport.open()


class TestHosts:
    @pytest.mark.parametrize("at", [0, 1, 2])
    async def test_a_silent_host_is_not_in_the_way_of_the_others(
        self, proxy: FaultProxy, at: int
    ) -> None:
        proxy.freeze()  # it takes connections and says nothing
        good = TransportURL.parse(url_of("rabbitmq") or "").hosts[0]
        hosts = [f"{good[0]}:{good[1]}", f"{good[0]}:{good[1]}"]
        hosts.insert(at, f"127.0.0.1:{proxy.port}")
        url = TransportURL.parse(f"amqp://guest:guest@{','.join(hosts)}/")
        # The order of the hosts is drawn by each process: here, as they stand.
        transport = create(TransportSettings(url=url, clock=Straight(), connect_timeout=12.0))
        assert isinstance(transport, RabbitMQTransport)
        assert transport._out._hosts == list(url.hosts)
        async with asyncio.timeout(11):
            await transport.open()
        await transport.close()

    async def test_live_it_goes_to_the_others_too(self, tmp_path: Path) -> None:
        direct = url_or_skip("rabbitmq")
        host, port = TransportURL.parse(direct).hosts[0]
        async with FaultProxy.to(direct) as first, FaultProxy.to(direct) as second:
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port},{host}:{port}"
            async with connected(f"amqp://guest:guest@{hosts}/", tmp_path, heartbeat=1) as harness:
                topic = harness.topic()
                member = await harness.join(topic)
                first.freeze()
                second.freeze()
                await harness.connect()  # one that is not frozen is found, whichever was first
                async with asyncio.timeout(40):
                    while True:
                        [error] = await harness.transport.submit([harness.message(topic, b"x")])
                        if error is None:
                            break
                    await member.subscription.receive(1, 1000)

    async def test_the_order_of_hosts_is_each_processs_own(self) -> None:
        url = TransportURL.parse("amqp://" + ",".join(f"h{number}" for number in range(9)))
        orders = set()
        for _ in range(20):
            transport = create(TransportSettings(url=url))
            assert isinstance(transport, RabbitMQTransport)
            assert sorted(transport._out._hosts) == sorted(url.hosts)
            orders.add(tuple(transport._out._hosts))
        assert len(orders) > 10


class TestSupervisors:
    @pytest.mark.parametrize("error", [ConfigError("no such file"), KeyError("anything")])
    async def test_survive_whatever_a_reconnection_raises(
        self,
        proxy: FaultProxy,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            raised = 0

            def tls(_: Link) -> None:
                nonlocal raised
                if raised < 4:
                    raised += 1
                    raise error

            monkeypatch.setattr(Link, "_tls", tls)
            proxy.reset()
            await until(lambda: harness.transport.health() is not None)
            await until(lambda: raised == 4)
            await until(lambda: harness.transport.health() is None)
            await until(lambda: member.listener.healthy == [False, True])
            await harness.send(topic, b"x")
            assert payloads(await member.take(1)) == [b"x"]

    async def test_of_a_subscription_survive_what_is_refused_for_a_while(
        self, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with connected(proxy.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            consume, refused = Consumers.consume, 0

            async def refuse(consumers: Consumers, session: Session) -> None:
                nonlocal refused
                if refused < 3:
                    refused += 1
                    raise aiormq.exceptions.ChannelAccessRefused("ACCESS_REFUSED")
                await consume(consumers, session)

            monkeypatch.setattr(Consumers, "consume", refuse)
            proxy.reset()
            await until(lambda: member.listener.healthy == [False, True])
            assert refused == 3
            await harness.send(topic, b"x")
            assert payloads(await member.take(1)) == [b"x"]


@pytest.fixture
def own() -> Iterator[tuple[RabbitMQBroker, RunningBroker]]:
    kind = RabbitMQBroker()
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(start_own(kind))
        except BrokerUnavailable as error:
            skip_or_fail("rabbitmq", error)
        yield kind, broker


class TestRestarts:
    async def test_nothing_is_lost_when_the_server_is_killed(
        self, own: tuple[RabbitMQBroker, RunningBroker], tmp_path: Path
    ) -> None:
        kind, broker = own
        async with connected(broker.url, tmp_path) as harness:
            topic = harness.topic()
            member = await harness.join(topic)
            await harness.send(topic, *(b"%d" % number for number in range(100)))
            taken = await member.take(30)
            await member.ack(*taken[:10])
            await asyncio.sleep(9)  # younger queues may be wedged after a kill
            assert broker.directory is not None
            assert broker.process is not None
            port = int(broker.details["port"])
            broker.signal(signal.SIGKILL)
            broker.process.wait()
            await until(lambda: member.listener.healthy == [False])
            restarted = await asyncio.to_thread(kind.start, broker.directory, port)
            broker.process = restarted.process  # so that the fixture stops this one
            await until(lambda: member.listener.healthy == [False, True], within=30)
            again = await member.take(90)
            assert {*payloads(again)} == {b"%d" % number for number in range(10, 100)}
            await member.ack(*again)
            await harness.send(topic, b"after")
            assert payloads(await member.take(1)) == [b"after"]
