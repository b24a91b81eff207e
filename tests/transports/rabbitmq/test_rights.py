"""A RabbitMQ server of one's own: users with few rights, alarms, a frozen server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError
from pamqp.commands import Basic
from pamqp.common import FieldTable
from protoflow.contract.spec import Ordering
from protoflow.errors import AuthenticationError, PublishError
from protoflow.message import Message, Settlement
from protoflow.transport import Topology, TopologyMode

from tests.acceptance.targets import TARGETS
from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable, RunningBroker
from tests.brokers.rabbitmq import RabbitMQBroker
from tests.transports.rabbitmq.harness import Harness, Listener, payloads
from tests.transports.rabbitmq.test_order import kill, until
from tests.transports.rabbitmq.test_source import ForeignQueue
from tests.transports.source_walk import Walk

pytestmark = pytest.mark.timeout(120)


class Server:
    """A server, and what its operator does."""

    def __init__(self, kind: RabbitMQBroker, broker: RunningBroker) -> None:
        self.kind = kind
        self.broker = broker
        self.url = broker.url

    async def control(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.kind.control, self.broker, *arguments)

    async def user(self, name: str, configure: str, write: str, read: str) -> str:
        """The URL of a user with these rights."""
        await self.control("add_user", name, name)
        await self.control("set_permissions", name, configure, write, read)
        return self.url.replace("guest:guest", f"{name}:{name}")

    @contextlib.asynccontextmanager
    async def alarm(self) -> AsyncIterator[None]:
        """The server is short of memory."""
        await self.control("set_vm_memory_high_watermark", "absolute", "10MB")
        try:
            yield
        finally:
            await self.control("set_vm_memory_high_watermark", "0.6")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server stands still."""
        self.broker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.broker.signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    kind = RabbitMQBroker()
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(start_own(kind))
        except BrokerUnavailable as error:
            skip_or_fail("rabbitmq", error)
        yield Server(kind, broker)


@pytest.fixture
async def harness(server: Server, tmp_path: Path) -> AsyncIterator[Harness]:
    harness = Harness(TARGETS["rabbitmq"], server.url, tmp_path)
    harness.transport = await harness.connect()
    yield harness
    await harness.close()


@contextlib.asynccontextmanager
async def channel(url: str) -> AsyncIterator[Any]:
    """A channel of a foreign client."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def refused(url: str, exchange: str, key: str) -> bool:
    """Whether a user may not publish there."""
    forged = Basic.Properties(headers={"pf_group": "billing", "pf_attempt": "99"})
    async with channel(url) as foreign:
        try:
            await foreign.basic_publish(b"x", exchange=exchange, routing_key=key, properties=forged)
        except AMQPError as error:
            return "ACCESS_REFUSED" in str(error)
    return False


class TestStrangers:
    async def test_a_publisher_reaches_topics_and_no_place_of_hop_state(
        self, server: Server, harness: Harness
    ) -> None:
        # The rights of docs/security.md.
        stranger = await server.user("publisher", "^$", "^protoflow$", "^$")
        topic = harness.topic()
        member = await harness.join(topic)
        queue = f"protoflow/{topic}/billing"
        for exchange, key in (
            ("", queue),
            ("", f"{queue}/retry-5s"),
            ("", f"{queue}/solo"),
            ("protoflow/+retry", queue),
            ("protoflow/+retry", f"{queue}/retry-5s"),
            ("protoflow/+retry", f"{queue}/solo"),
            ("protoflow/+back", queue),
            ("protoflow/+overflow", queue),
        ):
            assert await refused(stranger, exchange, key), (exchange, key)
        assert not await refused(stranger, "protoflow", topic)
        (delivery,) = await member.take(1)
        assert not delivery.own_place
        await member.ack(delivery)

    async def test_a_consumer_has_its_own_queues_and_writes_no_hop_state(
        self, server: Server, harness: Harness
    ) -> None:
        stranger = await server.user(
            "consumer", r"^stranger\.", r"^stranger\.", r"^(protoflow|stranger\..*)$"
        )
        topic = harness.topic()
        member = await harness.join(topic)
        queue = f"protoflow/{topic}/billing"
        async with channel(stranger) as foreign:
            await foreign.queue_declare("stranger.q", durable=True)
            await foreign.queue_bind("stranger.q", "protoflow", topic)
            await harness.send(topic, b"x")
            await asyncio.sleep(0.2)
            found = await foreign.basic_get("stranger.q", no_ack=True)
            assert found.body == b"x"
        assert payloads(await member.take(1)) == [b"x"]
        dead_lettering: FieldTable = {"x-dead-letter-exchange": "protoflow/+back"}
        attempts: tuple[Callable[[AbstractChannel], Awaitable[object]], ...] = (
            lambda foreign: foreign.queue_declare("stranger.d", arguments=dead_lettering),
            lambda foreign: foreign.queue_bind(queue, "protoflow", "#"),
            lambda foreign: foreign.basic_get(queue),
            lambda foreign: foreign.queue_delete(f"{queue}/solo"),
        )
        for attempt in attempts:
            async with channel(stranger) as foreign:
                with pytest.raises(AMQPError, match="ACCESS_REFUSED"):
                    await attempt(foreign)
        assert await refused(stranger, "protoflow/+retry", queue)

    async def test_a_service_needs_no_configure_where_another_makes_its_queues(
        self, server: Server, harness: Harness
    ) -> None:
        user = await server.user("plain", "^$", "^protoflow", "^protoflow")
        topic = harness.topic()
        mine = Harness(TARGETS["rabbitmq"], user, harness.directory)
        mine.transport = await mine.connect()
        for ordering in Ordering:
            settings = harness.settings(topic, f"g-{ordering.name.lower()}", ordering=ordering)
            topology = Topology(subscriptions=(settings,))
            await harness.transport.ensure(topology, TopologyMode.CREATE)
            await mine.transport.ensure(topology, TopologyMode.NONE)
            subscription = await mine.transport.subscribe(settings, Listener())
            await mine.send(topic, b"x")
            assert payloads(await subscription.receive(1, 1000)) == [b"x"]
        broadcast = harness.settings(topic, "all", broadcast=True)
        with pytest.raises(AuthenticationError, match="configure"):
            await mine.transport.subscribe(broadcast, Listener())
        settings = harness.settings(harness.topic("new"))
        with pytest.raises(AuthenticationError, match="configure"):
            await mine.transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        await mine.close()

    async def test_what_may_not_be_written_is_refused_and_spares_the_others(
        self, server: Server, harness: Harness
    ) -> None:
        user = await server.user("few", "^$", "^protoflow$", "^protoflow")
        topic = harness.topic()
        member = await harness.join(topic)
        mine = Harness(TARGETS["rabbitmq"], user, harness.directory)
        mine.transport = await mine.connect()
        bad = mine.message(f"protoflow/{topic}/billing/retry-5s", b"bad", mandatory=True)
        good = [mine.message(topic, b"%d" % number) for number in range(4)]
        errors = await mine.transport.submit([*good[:2], bad, *good[2:]])
        assert "grant the user the right to write" in str(errors[2])
        assert not [
            error for error in errors if error and error is not errors[2] and "grant" in str(error)
        ]
        again = [
            message
            for message, error in zip(good, [*errors[:2], *errors[3:]], strict=True)
            if error
        ]
        assert list(await mine.transport.submit(again)) == [None] * len(again)
        assert {*payloads(await member.drain())} == {b"0", b"1", b"2", b"3"}
        await mine.close()


class TestAlarms:
    async def test_an_ordered_group_is_taken_over_and_nothing_is_written_twice(
        self, server: Server, harness: Harness
    ) -> None:
        topic, other = harness.topic(), harness.topic("other")
        options = {"confirm_timeout": 2, "request_timeout": 4}
        first, second, publisher = [await harness.connect(**options) for _ in range(3)]
        member = await harness.join(topic, transport=first, ordering=Ordering.PER_KEY)
        standby = await harness.join(topic, transport=second, ordering=Ordering.PER_KEY)
        watcher = await harness.join(other)
        await harness.send(topic, b"0", b"1", key=b"k")
        await member.take(1, most=1)
        message = harness.message(other, b"once")
        async with server.alarm():
            await asyncio.sleep(1)
            kill(first)
            assert payloads(await standby.take(2, within=10)) == [b"0", b"1"]
            for _ in range(4):
                [error] = await publisher.submit([message])
                assert isinstance(error, PublishError)
                assert "memory" in str(error)
            await until(lambda: publisher.health() is not None)
            assert "blocks publishers" in str(publisher.health())
        [error] = await publisher.submit([message])
        assert error is None
        await until(lambda: publisher.health() is None)
        assert payloads(await watcher.drain()) == [b"once"]


class TestFrozen:
    async def test_stopping_and_closing_end_when_they_are_reported_to(
        self, server: Server, harness: Harness
    ) -> None:
        topic = harness.topic()
        before = asyncio.all_tasks()
        transport = await harness.connect()
        harness._transports.remove(transport)
        member = await harness.join(topic, transport=transport)
        ordered = await harness.join(
            harness.topic("o"), transport=transport, ordering=Ordering.PER_KEY
        )
        await harness.send(topic, b"x")
        (delivery,) = await member.take(1)
        with server.frozen():
            publishing = transport.submit([harness.message(topic, b"y")])
            settling = member.subscription.settle([Settlement(delivery)])
            started = time.monotonic()
            for ending in (
                member.subscription.stop(),
                ordered.subscription.stop(),
                transport.close(),
            ):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await ending
            assert time.monotonic() - started < 12
            [error] = await publishing
            assert isinstance(error, PublishError)
            async with asyncio.timeout(5):
                await settling
                while left := asyncio.all_tasks() - before:  # noqa: F841  shown when it fails
                    await asyncio.sleep(0.1)


async def test_a_source_needs_no_right_to_configure_it_and_stays_as_it_was(server: Server) -> None:
    """The user may read the queue of others, and configure and write only what is ours."""
    user = await server.user("guest-of-legacy", "^protoflow", "^protoflow", "^(protoflow|legacy)")

    async def theirs() -> list[str]:
        arguments = await server.control("list_queues", "name", "arguments", "policy", "durable")
        bindings = await server.control("list_bindings", "source_name", "destination_name")
        lines = [*arguments.splitlines(), "-", *bindings.splitlines()]
        return [line for line in lines if "legacy" in line]

    async with channel(server.url) as native:
        place = ForeignQueue(native, "quorum", "legacy")
        await place.declare()
        before = await theirs()
        assert len(before) == 3  # the queue, its binding to the fanout, and the default one
        walk = Walk(user, place, failing={2})
        await place.publish(b'{"number": 2}', None, {"tenant": "acme"})
        async with walk.running() as service:
            await walk.dead_letters(service, 1)
        assert [run.attempt for run in walk.runs] == [1, 2, 3]
        assert sorted(await theirs()) == sorted(before)
        await place.delete()


async def test_a_message_that_ends_the_channel_is_found_and_harms_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that the server does not like: here a copy list that is no list."""
    from protoflow.transports.rabbitmq import codec

    topic = harness.topic()
    member = await harness.join(topic)
    monkeypatch.setattr(codec, "_ORDERS", ())
    good = [harness.message(topic, b"%d" % number) for number in range(6)]
    bad = Message(id="bad", topic=topic, payload=b"bad", metadata={"CC": "text"})
    waiting = [*good[:3], bad, *good[3:]]
    refused = None
    for _ in range(3):
        errors = await harness.transport.submit(waiting)
        results = dict(zip([message.id for message in waiting], errors, strict=True))
        refused = results.get("bad") or refused
        waiting = [
            message
            for message in waiting
            if results[message.id] is not None and type(results[message.id]) is PublishError
        ]
        if not waiting:
            break
    assert waiting == []
    assert "CC" in str(refused)
    seen = {*payloads(await member.drain())}
    assert seen == {message.payload for message in good}
