"""Schemas are asked for once, and a registry that fails costs little."""

from __future__ import annotations

import asyncio
from traceback import walk_tb
from typing import Any
from uuid import UUID

import pytest
from protoflow import Config
from protoflow.codecs.framing import Frame, read
from protoflow.connection import connect_sync
from protoflow.errors import ConfigError, SchemaRegistryError
from protoflow.schema_registry.comparison import compared
from protoflow.schema_registry.registry import SchemaRegistry

from tests.schema_registry.fake import FakeRegistry


def registry_of(url: str, topics: Any = None, **options: Any) -> SchemaRegistry:
    options = {"url": url, "auto_register": True, **options}
    config = Config(
        transport="kafka://nowhere", schema_registry=options, environ={}, topics=topics or {}
    )
    return SchemaRegistry(config, lambda: 0.5)


async def test_a_type_is_registered_once_with_its_imports(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        registry = registry_of(fake.url)
        many = (registry.prepare("orders", pb2.OrderPlaced) for _ in range(20))
        framings = await asyncio.gather(*many)
        await registry.prepare("orders", pb2.OrderPlaced)
    assert len(set(map(id, framings))) == 1
    assert fake.requests == [
        "POST /subjects/registry%2Fv1%2Fcommon.proto/versions",
        "POST /subjects/registry%2Fv1%2Fcommon.proto",
        "POST /subjects/orders-value/versions",
    ]
    assert fake.bodies[2]["references"] == [
        {"name": "registry/v1/common.proto", "subject": "registry/v1/common.proto", "version": 1}
    ]
    assert framings[0].data == bytes(Frame(2, (0,)))
    assert registry.name_of(Frame(2, (0,))) == "registry.v1.OrderPlaced"


@pytest.mark.parametrize(
    ("strategy", "subject"),
    [
        ("topic", "orders-value"),
        ("record", "registry.v1.OrderPlaced.Line"),
        ("topic_record", "orders-registry.v1.OrderPlaced.Line"),
    ],
)
async def test_subjects_and_nested_messages(strategy: str, subject: str, pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        registry = registry_of(fake.url, subject_strategy=strategy)
        framing = await registry.prepare("orders", pb2.OrderPlaced.Line)
    assert fake.requests[-1] == f"POST /subjects/{subject}/versions"
    assert read(framing.data)[0].path == (0, 0)
    async with FakeRegistry().serving() as fake:  # a descriptor also has the entry of the map
        registry = registry_of(fake.url, format="serialized")
        framing = await registry.prepare("orders", pb2.OrderPlaced.Line)
    assert read(framing.data)[0].path == (0, 1)


async def test_topics_have_options_of_their_own(pb2: Any) -> None:
    topics = {
        "audit": {"schema_registry": {"ids": "header", "subject_strategy": "record"}},
        "plain": {"schema_registry": {"enabled": False}},
    }
    async with FakeRegistry().serving() as fake:
        registry = registry_of(fake.url, topics)
        framing = await registry.prepare("audit", pb2.OrderBilled)
        assert registry.of_topic("plain").enabled is False
        assert registry.of_topic("orders").subject_strategy == "topic"
    assert fake.requests[-1] == "POST /subjects/registry.v1.OrderBilled/versions"
    assert isinstance(read(framing.data)[0].schema, UUID)


async def test_lookups_name_file_message_subject_and_the_way_out(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        registry = registry_of(fake.url, auto_register=False)
        with pytest.raises(SchemaRegistryError) as caught:
            await registry.prepare_all([("orders", pb2.OrderPlaced)], 5.0)
    text = str(caught.value)
    assert text.startswith("registry/v1/orders.proto: registry.v1.OrderPlaced in topic orders, ")
    assert "subject orders-value: import registry/v1/common.proto, " in text
    assert "no such schema; register it with `protoflow schemas register`" in text


async def test_a_type_is_learned_once_and_then_needs_no_registry(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        await registry_of(fake.url).prepare("orders", pb2.OrderPlaced)
        guid = UUID(fake.schemas[1][1])
        registry = registry_of(fake.url)
        fake.requests.clear()
        frame = Frame(2, (0, 0))
        names = await asyncio.gather(*(registry.learn(frame) for _ in range(20)))
        assert set(names) == {"registry.v1.OrderPlaced.Line"}
        assert fake.requests == ["GET /schemas/ids/2"]
        assert await registry.learn(Frame(guid, (1,))) == "registry.v1.OrderBilled"
    assert await registry.learn(frame) == names[0]
    assert registry.name_of(frame) == names[0]


async def test_a_registry_that_hangs_costs_one_request(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.hang = 30
        registry = registry_of(fake.url, timeout=0.2, longest_wait=60)
        for _ in range(50):
            with pytest.raises(SchemaRegistryError, match=r"no answer within 0\.2 s") as caught:
                await registry.learn(Frame(1, (0,)))
            assert caught.value.temporary
        assert len(fake.requests) == 1


async def test_a_start_waits_for_the_registry(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.status = 503
        registry = registry_of(fake.url)
        waiting = asyncio.create_task(registry.prepare_all([("orders", pb2.OrderBilled)], 60.0))
        while not fake.requests:
            await asyncio.sleep(0.01)
        fake.status = 0
        await waiting
    assert registry.framing("orders", pb2.OrderBilled) is not None


async def test_a_missing_schema_is_no_outage(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        registry = registry_of(fake.url)
        for _ in range(5):
            with pytest.raises(SchemaRegistryError, match=r"schema id 9, message 0: .*no schema 9"):
                await registry.learn(Frame(9, (0,)))
        assert len(fake.requests) == 1
        await registry.prepare("orders", pb2.OrderPlaced)
        with pytest.raises(SchemaRegistryError, match="the schema has no message 7") as caught:
            await registry_of(fake.url).learn(Frame(2, (7,)))
        assert not caught.value.temporary


async def test_refusals_are_not_repeated(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.status = 401
        registry = registry_of(fake.url, username="ann", password="s3cret")
        with pytest.raises(SchemaRegistryError, match="refused the credentials") as caught:
            await registry.prepare_all([("orders", pb2.OrderBilled)], 30.0)
        assert "s3cret" not in str(caught.value)
        assert fake.headers[0]["Authorization"] == "Basic YW5uOnMzY3JldA=="
        fake.status = 409
        with pytest.raises(SchemaRegistryError, match="as asked; keep the fields of the earlier"):
            await registry.prepare("orders", pb2.OrderPlaced)
        assert len(fake.requests) == 2
        fake.status = 0
        await registry_of(fake.url, token="t0ken").prepare("orders", pb2.OrderBilled)
        assert fake.headers[-1]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_refusals_are_not_about_a_received_message(status: int) -> None:
    """A wrong path, expired credentials: messages wait, as if the registry were out of reach."""
    async with FakeRegistry().serving() as fake:
        fake.status = status
        registry = registry_of(fake.url)
        for _ in range(5):
            with pytest.raises(SchemaRegistryError, match="schema id 1, message 0: ") as caught:
                await registry.learn(Frame(1, (0,)))
            assert caught.value.temporary
        assert len(fake.requests) == 1


async def test_a_wrong_path_is_no_missing_schema(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.status = 404  # of a proxy: its answer has no error_code
        registry = registry_of(fake.url)
        with pytest.raises(SchemaRegistryError, match="check the path of the URL"):
            await compared(registry, [("orders", pb2.OrderPlaced)], register=False)


@pytest.mark.parametrize("status", [0, 503])
async def test_repeated_errors_keep_no_tracebacks(status: int) -> None:
    async with FakeRegistry().serving() as fake:
        fake.status = status
        registry = registry_of(fake.url, longest_wait=60)
        lengths = set()
        for _ in range(20):
            with pytest.raises(SchemaRegistryError) as caught:
                await registry.learn(Frame(1, (0,)))
            error: BaseException | None = caught.value
            while error is not None:
                lengths.add(len(list(walk_tb(error.__traceback__))))
                error = error.__cause__
        assert max(lengths) < 10


async def test_requests_that_fail_together_are_one_failure() -> None:
    async with FakeRegistry().serving() as fake:
        fake.status = 503
        registry = registry_of(fake.url)
        many = (registry.learn(Frame(number, (0,))) for number in range(20))
        await asyncio.gather(*many, return_exceptions=True)
        assert registry._requests.pause < 1


async def test_the_next_host_is_asked(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        host = fake.url.removeprefix("http://").partition("/")[0]
        registry = registry_of(f"http://127.0.0.1:1,{host}/base")
        await registry.prepare("orders", pb2.OrderBilled)
        count = len(fake.requests)
        await registry.prepare("other", pb2.OrderBilled)
        assert len(fake.requests) == count + 1
        assert host in registry.client._bases[0], "the host that answered is asked first"


async def test_requests_at_the_same_time_leave_a_host_once(pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        host = fake.url.removeprefix("http://").partition("/")[0]
        registry = registry_of(f"http://127.0.0.1:1,{host}/base")
        for topics in (("a", "b"), ("c", "d")):
            both = (registry.prepare(topic, pb2.OrderBilled) for topic in topics)
            await asyncio.gather(*both)
        assert host in registry.client._bases[0]


def test_mistakes_in_the_options_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        registry_of("http://a", subjekt="x", ids="trailer", timeout=-1)
    assert caught.value.problems[0].startswith("schema_registry: unknown option 'subjekt'")
    assert "schema_registry: option ids: must be one of payload, header" in caught.value.problems
    with pytest.raises(ConfigError, match="option token and user or password exclude each other"):
        registry_of("http://a", token="a", username="b", password="c")
    with pytest.raises(ConfigError, match="token and the user in the URL exclude each other"):
        registry_of("http://b:c@a", token="a")
    with pytest.raises(ConfigError, match="ids: must be one of payload, header"):
        connect_sync("memory://", environ={}, schema_registry={"url": "http://a", "ids": "x"})
    with pytest.raises(ConfigError, match=r"^topics.'t'.schema_registry: no schema registry is"):
        Config(environ={}, topics={"t": {"schema_registry": {"enabled": False}}})
    with pytest.raises(ConfigError, match="option tls_ca_file needs the scheme https://"):
        registry_of("http://a", tls_ca_file="x")
    with pytest.raises(
        ConfigError, match=r"topics.'t'.schema_registry: option ids: must be one of"
    ):
        registry_of("http://a", {"t": {"schema_registry": {"ids": "trailer"}}})
    settings: dict[str, Any]
    for settings in ({"transport": "nats://n"}, {"structured": True}):
        given: dict[str, Any] = {"transport": "kafka://k", **settings}
        config = Config(
            **given, environ={},
            schema_registry={"url": "http://a", "ids": "header"},
        )  # fmt: skip
        with pytest.raises(ConfigError, match=r"write payload|leave `structured` unset"):
            SchemaRegistry(config, lambda: 0.5)


@pytest.mark.parametrize("id", [None, "7", -1, 2**32])
async def test_an_id_that_no_frame_can_hold_is_reported(id: Any, pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.answer = {"id": id, "version": 1}
        with pytest.raises(SchemaRegistryError, match="without an id that a frame can hold"):
            await registry_of(fake.url).prepare("orders", pb2.OrderBilled)


@pytest.mark.parametrize("guid", [None, "", "7", 7, []])
async def test_registries_without_guids_have_ids_in_headers(guid: Any, pb2: Any) -> None:
    async with FakeRegistry().serving() as fake:
        fake.answer = {"id": 2**32 - 1, "version": 1, "guid": guid}
        framing = await registry_of(fake.url, ids="header").prepare("orders", pb2.OrderBilled)
    assert read(framing.data)[0].schema == 2**32 - 1
