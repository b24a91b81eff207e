"""Servers of a test's own: a cluster, a sentinel, a user with few rights, one that evicts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from protoflow.contract.spec import Ordering, Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import AuthenticationError, ConfigError, ConnectionFailedError
from protoflow.message import Action, Settlement
from protoflow.transport import LagReader, Topology, TopologyMode, Transport

from tests.transports.nats.harness import (
    ack,
    join,
    make,
    message,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)
from tests.transports.redis.servers import cluster, sentinel, server

ROOT = Path(__file__).parents[3]


async def all_paths(transport: Transport, shards: int) -> None:
    """Publishes, delays, retries, dead-letters and replays over all shards."""
    assert isinstance(transport, LagReader)
    name = topic()
    subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    keys = [b"k%d" % number for number in range(20)]
    await publish(transport, *[message(name, key, key=key) for key in keys])
    await publish(transport, message(name, b"later", key=b"later", delay=0.2))
    batch = await take(subscription, 21)
    assert sorted(payloads(batch)) == sorted([*keys, b"later"])
    assert len({each.shard for each in batch}) == shards
    first, *rest = batch
    assert (await transport.lag(name, "billing")).messages == 21
    await ack(subscription, *rest)
    await subscription.settle([Settlement(first, Action.NACK, delay=0.1, failures=1)])
    (again,) = await take(subscription, 1)
    assert again.failures == 1
    dead = f"{name}..billing..dead"
    metadata = {"pf_original_topic": name, "pf_group": "billing"}
    await publish(transport, message(dead, b"dead", key=b"k1", metadata=metadata))
    await ack(subscription, again)
    dead_letters = dead_letters_of(transport)
    assert await dead_letters.count(dead) == 1
    assert await dead_letters.replay(dead) == 1
    (replayed,) = await take(subscription, 1)
    assert replayed.message.payload == b"dead"
    await ack(subscription, replayed)
    assert await dead_letters.count(dead) == 0
    await subscription.stop()


async def test_a_cluster_of_three_nodes() -> None:
    with cluster() as url:
        async with opened(url) as transport:
            await all_paths(transport, 3)


async def test_a_sentinel_names_the_server() -> None:
    with sentinel() as url:
        async with opened(url) as transport:
            await all_paths(transport, 1)


async def test_the_rights_of_the_documentation_suffice_and_others_are_refused() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("redis.md", "security.md"))
    rules = re.findall(r"^ACL SETUSER (.*)$", text, re.MULTILINE)
    assert len(rules) == 2
    with server() as broker:
        client: Any
        async with redis.asyncio.from_url(broker.url) as client:
            for rule in rules:
                await client.execute_command("ACL", "SETUSER", *rule.split())
        url = broker.url.replace("redis://", "redis://orders:secret@")
        async with opened(url) as transport:
            await all_paths(transport, 1)
            name = topic()
            screens, _ = await join(transport, name, broadcast=True, start=Start.LATEST)
            await publish(transport, message(name, b"x"))
            await ack(screens, *await take(screens, 1))
            await screens.stop()
            subscription, _ = await join(transport, "orders.placed")
            stream, guest = (
                "protoflow:{orders.placed:0}",
                broker.url.replace("//", "//guest:secret@"),
            )
            async with redis.asyncio.from_url(guest) as client:
                await client.xadd(stream, {"_payload": "x", "pf_attempt": "7"})
                for part in ("state", "marks", "waiting"):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        await client.hset(f"{stream}:{part}:billing", "0-1", "7 1.0 7")
                for refused in (
                    client.xadd("protoflow:{orders.placed..billing..dead:0}", {"_payload": "x"}),
                    client.xrange(stream),
                    client.xdel(stream, "0-1"),
                    client.xtrim(stream, 0),
                    client.eval("return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)", 1, stream),
                ):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        await refused
            (delivery,) = await take(subscription, 1)
            assert (delivery.failures, delivery.deliveries, delivery.own_place) == (0, 1, False)
        async with opened(url, prefix="elsewhere") as transport:
            topology = Topology(subscriptions=(settings_of(topic()),))
            with pytest.raises(AuthenticationError):
                await transport.ensure(topology, TopologyMode.CREATE)
        with pytest.raises(AuthenticationError):
            await make(url.replace("secret", "wrong")).open()


async def test_a_server_that_evicts_is_refused() -> None:
    refused = pytest.raises(ConnectionFailedError, match="maxmemory-policy to noeviction")
    with server("--maxmemory-policy", "allkeys-lru") as broker, refused:
        await make(broker.url).open()


async def test_when_memory_is_short_publishing_fails_and_settling_goes_on() -> None:
    with server("--maxmemory", "40mb", "--maxmemory-policy", "noeviction") as broker:
        async with opened(broker.url) as transport:
            name = topic()
            subscription, _ = await join(transport, name)
            errors: list[Any] = []
            while not any(errors):
                lot = [message(name, bytes(100_000)) for _ in range(50)]
                errors = [*await transport.submit(lot)]
            assert "OOM" in str(next(filter(None, errors)))
            await ack(subscription, *await take(subscription, 20))
            async with asyncio.timeout(10):
                while any(await transport.submit([message(name)])):
                    await ack(subscription, *await take(subscription, 20))


async def test_when_memory_is_short_a_lane_is_settled_one_by_one() -> None:
    with server("--maxmemory-policy", "noeviction") as broker:
        client: Any
        async with (
            redis.asyncio.from_url(broker.url) as client,
            opened(broker.url) as transport,
        ):
            name = topic()
            subscription: Any
            subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
            await publish(transport, *[message(name, b"%d" % n, key=b"k") for n in range(4)])
            batch = await take(subscription, 3)
            await client.config_set("maxmemory", 1)
            assert any(await transport.submit([message(name)]))
            await ack(subscription, batch[0])
            await subscription.settle([Settlement(batch[1], Action.RELEASE)])
            await client.config_set("maxmemory", 0)
            await ack(subscription, batch[2])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://a,b", "several hosts are a cluster or sentinels"),
        ("redis://a/x", "a database by number"),
        ("redis://a/1?cluster=true", "only database 0"),
        ("redis://a?cluster=true&sentinel=main", "exclude each other"),
        ("redis://a?shards=0", "from 1 to 256"),
        ("rediss://a?sentinel=main&tls_server_name=b", "with a cluster or sentinels"),
        ("redis://a?tls_verify=false", "needs the scheme rediss://"),
        ("redis://a?nothing=1", "nothing"),
    ],
)
def test_mistakes_in_the_url_are_named(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make(url)
