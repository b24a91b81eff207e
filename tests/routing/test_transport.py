"""Several transports as one: opened together, each with its share, each error with its name."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import protoflow.transport
import pytest
from protoflow import Config, Message, Service
from protoflow.clock import Clock
from protoflow.connection import transport_for
from protoflow.errors import (
    CapabilityError,
    ConfigError,
    ConnectionFailedError,
    NotReplayableError,
    PublishError,
    TopologyError,
)
from protoflow.routing.routes import Routes
from protoflow.routing.transport import RoutedTransport, claims_of, part_of, parts_of
from protoflow.transport import (
    Capabilities,
    FoundMessages,
    MessageQuery,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
)


def config(**settings: Any) -> Config:
    return Config(
        environ={}, transport="memory://", transports={"audit": "memory://audit"},
        topics={"audited": {"transport": "audit"}}, **settings,
    )  # fmt: skip


class Part:
    """A transport that notes its calls and fails on request."""

    def __init__(self, **claims: Any) -> None:
        self.capabilities = Capabilities(**claims)
        self.calls: list[Any] = []
        self.error: Exception | None = None

    async def open(self) -> None:
        self.calls.append("open")
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.calls.append("close")

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        self.calls.append(([one.name for one in topology.subscriptions], topology.topics))
        if self.error is not None:
            raise self.error

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self.calls.append([message.id for message in messages])
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result([None] * len(messages))
        return future

    def health(self) -> str | None:
        return None if self.error is None else str(self.error)


def parts(**claims: Any) -> tuple[RoutedTransport, Part, Part]:
    first, second = Part(), Part(**claims)
    made: Any = {"default": first, "audit": second}
    return RoutedTransport(made, Routes(config())), first, second


#: Optional interfaces that `RoutedTransport` does not have, and the reason.
NOT_FORWARDED = {
    "Availability": "the scheduler uses the subscription of its own transport",
    "EndsIntake": "the scheduler uses the subscription of its own transport",
    "Isolation": "the scheduler uses the subscription of its own transport",
    "KeepsTables": "the commands ask each transport",
    "NamesTopics": "the start asks each transport",
    "PrintsPolicy": "the command prints one policy for each transport",
    "SqlLog": "messages in a transaction go to the outbox",
    "Transactional": "a transaction holds within one transport",
}


def test_every_optional_interface_is_forwarded_or_known_not_to_be() -> None:
    modules = [
        importlib.import_module(f"protoflow.transport.{found.name}")
        for found in pkgutil.iter_modules(protoflow.transport.__path__)
    ]
    optional = {
        name: kind
        for module in modules
        for name, kind in vars(module).items()
        if getattr(kind, "_is_runtime_protocol", False) and kind.__module__ == module.__name__
    }
    routed, _first, _second = parts()
    forwarded = {name for name, kind in optional.items() if isinstance(routed, kind)}
    assert forwarded | NOT_FORWARDED.keys() == optional.keys()
    assert not forwarded & NOT_FORWARDED.keys()


def test_one_transport_stays_as_it_is() -> None:
    single = transport_for(Config(environ={}, transport="memory://"), Clock())
    assert not isinstance(single, RoutedTransport)
    assert parts_of(single) == {"": single}
    assert part_of(single, "default") is single
    assert claims_of(single) is single.capabilities


def test_mistakes_in_options_are_named_with_their_transport() -> None:
    topics = {"audited": {"transport": "audit"}}
    wrong = {"audit": {"url": "memory://audit", "sise": 1}}
    with pytest.raises(ConfigError, match=r"transports\.audit: transport: memory: .*'sise'"):
        transport_for(Config(environ={}, transports=wrong, topics=topics), Clock())


async def test_if_one_cannot_be_opened_the_others_are_closed() -> None:
    routed, first, second = parts()
    second.error = ConnectionFailedError("no route")
    with pytest.raises(ConnectionFailedError, match="transport audit: no route"):
        await routed.open()
    assert first.calls == ["open", "close"]
    assert routed.health() == "audit: no route [PF302]"


async def test_each_transport_makes_its_share_of_the_topology() -> None:
    routed, first, second = parts()
    one, two = (
        SubscriptionSettings(name=f"{name}/g", topic=name, group="g", transport=transport)
        for name, transport in (("orders", "default"), ("audited", "audit"))
    )
    topology = Topology(subscriptions=(one, two), topics=("audited", "other"))
    await routed.ensure(topology, TopologyMode.CREATE)
    assert first.calls == [(["orders/g"], ("other",))]
    assert second.calls == [(["audited/g"], ("audited",))]
    first.error, second.error = TopologyError("no orders"), TopologyError("no audited")
    with pytest.raises(TopologyError) as caught:
        await routed.ensure(topology, TopologyMode.VERIFY)
    assert str(caught.value) == (
        "transport default: no orders [PF304]\ntransport audit: no audited [PF304]"
    )


async def test_a_topic_is_made_where_it_is_published_also_if_it_is_consumed_elsewhere() -> None:
    routed, first, second = parts()
    one = SubscriptionSettings(name="orders/g", topic="orders", group="g", transport="audit")
    await routed.ensure(Topology(subscriptions=(one,), topics=("orders",)), TopologyMode.CREATE)
    assert first.calls == [([], ("orders",))]
    assert second.calls == [(["orders/g"], ())]


async def test_mistakes_that_are_found_while_opening_are_named_with_their_transport() -> None:
    routed, first, second = parts()
    first.error, second.error = ConfigError("no such file"), ConnectionFailedError("no route")
    with pytest.raises(ConfigError) as caught:
        await routed.open()
    assert (
        str(caught.value)
        == "transport default: no such file [PF201]\ntransport audit: no route [PF302]"
    )


async def test_results_are_in_the_order_of_the_messages() -> None:
    routed, first, second = parts()
    messages = [Message(id=str(n), topic=topic, payload=b"")
                for n, topic in enumerate(("audited", "a", "audited", "b"))]  # fmt: skip
    assert await routed.submit(messages) == [None] * 4
    assert (first.calls, second.calls) == ([["1", "3"]], [["0", "2"]])
    second.error = PublishError("down")
    results = await routed.submit(messages)
    assert [str(error) for error in results] == ["down [PF401]", "None"] * 2
    assert await routed.submit(messages[1:2]) == [None]


async def test_each_message_has_its_own_result_whatever_a_transport_answers() -> None:
    routed, first, second = parts()
    same = Message(id="1", topic="a", payload=b"")
    other = Message(id="2", topic="audited", payload=b"")

    def answer(results: list[Any]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(results)
        return future

    full = PublishError("full")
    first.submit = lambda messages: answer([full, None])  # type: ignore[method-assign]
    assert await routed.submit([same, other, same]) == [full, None, None]
    second.submit = lambda messages: answer([])  # type: ignore[method-assign]
    results = await routed.submit([same, other, same])
    assert [str(error) for error in results] == [
        "full [PF401]", "publishing failed: RuntimeError: 0 results for 1 entries [PF401]", "None",
    ]  # fmt: skip


async def test_a_search_reads_the_other_transports_if_one_fails() -> None:
    class Finder(Part):
        async def find_message(self, query: MessageQuery) -> FoundMessages:
            if self.error is not None:
                raise self.error
            return FoundMessages(searched=list(query.topics))

    made: Any = {"default": Finder(), "audit": Finder()}
    made["default"].error = ConnectionFailedError("no route")
    routed = RoutedTransport(made, Routes(config()))
    found = await routed.find_message(MessageQuery(id="1", topics=("audited", "orders")))
    assert found.searched == ["audit: audited"]
    assert found.not_searched == ["default: orders: no route [PF302]"]


async def test_readers_say_what_a_transport_cannot() -> None:
    routed, _first, _second = parts(dead_letters=True, lag=True)
    assert routed.capabilities.dead_letters
    assert routed.capabilities.lag
    with pytest.raises(CapabilityError, match="the transport audit does not report lag"):
        await routed.lag("audited", "g")
    with pytest.raises(CapabilityError, match="the transport of audited cannot read topics"):
        routed.read_topic("audited", start=0.0, follow=False)
    with pytest.raises(CapabilityError, match="the transport default cannot list"):
        await routed.dead_letters.count("orders..g..dead")
    found = await routed.find_message(MessageQuery(id="1", topics=("audited", "orders")))
    assert [text.partition(": this")[0] for text in found.not_searched] == [
        "default: orders", "audit: audited",
    ]  # fmt: skip


async def test_a_dead_letter_is_not_replayed_to_another_transport() -> None:
    service = Service(config())

    async def fail(_message: Message, _context: Any) -> None:
        raise ValueError("always")

    policy = {"retry": {"max_attempts": 1}}
    service = Service(config(defaults=policy))
    service.register_message_handler("audit", "audited", fail)
    async with service:
        await service.publish(Message(id="1", topic="audited", payload=b"x"))
        topic = "audited..audit..dead"
        async with asyncio.timeout(10):
            while not await service.dead_letters.count(topic):
                await asyncio.sleep(0.01)
        store = service.transport.dead_letters  # type: ignore[attr-defined]
        async with store.scan(topic) as scan:
            (record,) = await scan.take(10)
            record.destination = "elsewhere"
            (error,) = await scan.replay([record], to_origin=False)
        assert isinstance(error, NotReplayableError)
        assert "elsewhere is on the transport default" in str(error)


async def test_a_program_replaces_transports_by_name() -> None:
    given: dict[str, Transport] = {}
    for name in ("default", "audit"):
        given[name] = transport_for(Config(environ={}, transport="memory://"), Clock())
    service = Service(config(), transport=given)
    assert parts_of(service.transport) == given
