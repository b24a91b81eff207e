"""The way to the servers: silent, strange, dying and announced ones, and files that go away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError, ConnectionFailedError
from protoflow.message import Message
from protoflow.transports.nats.wire.servers import Servers

from tests.brokers import skip_or_fail, start_own, url_or_skip
from tests.brokers.base import BrokerUnavailable
from tests.brokers.nats import NatsBroker
from tests.brokers.nats_cluster import NatsCluster
from tests.transports.nats.harness import (
    join,
    make,
    message,
    opened,
    payloads,
    publish,
    take,
    topic,
)
from tests.transports.nats.test_transport import _certificate

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _address(name: str) -> str:
    url = url_or_skip(name)
    return url.rpartition("/")[2]


@asynccontextmanager
async def _serving(answer: Answer) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ["nats", "jetstream"])
async def test_a_silent_host_holds_up_no_other(kind: str) -> None:
    good = _address("nats")
    async with _serving(_silence) as silent:
        for _ in range(3):  # the order is another one each time
            began = time.monotonic()
            hosts = f"127.0.0.1:{silent},{good},127.0.0.1:{silent}"
            async with opened(f"{kind}://{hosts}", connect_timeout=20.0) as transport:
                assert time.monotonic() - began < 8.0
                assert transport.health() is None


async def test_silent_hosts_are_an_error_in_time() -> None:
    async with _serving(_silence) as silent:
        began = time.monotonic()
        with pytest.raises(ConnectionFailedError, match="no answer"):
            await make(f"nats://127.0.0.1:{silent},127.0.0.1:{silent}", connect_timeout=1.0).open()
        assert time.monotonic() - began < 3.0


def test_each_round_begins_after_the_server_that_was_tried_last() -> None:
    servers = Servers(TransportURL.parse("nats://a:1,b:2"))
    first = servers.round()[0]
    servers.trying(first)
    assert servers.round()[-1] == first
    servers.learn(["c:3", "[::1]:4", "a:1", "nonsense", ":5", "d:x", 7])
    assert sorted(servers.round()) == [("::1", 4), ("a", 1), ("b", 2), ("c", 3)]
    assert servers.is_learned(("c", 3))
    assert not servers.is_learned(("a", 1))
    servers.learn([])
    assert len(servers.round()) == 2


_INFO = b'INFO {"server_id":"x","version":"%b","max_payload":1000}\r\n'
STRANGE = [
    b"", b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"\0" * 64, b"INFO {not json}\r\n",
    b"INFO \xff\xfe\r\n", b"INFO {}\r\n", b"INFO []\r\n", _INFO % b"weird" + b"PONG\r\n",
    _INFO % b"2.10.0" + b"-ERR 'Authorization Violation'\r\n",
    b'INFO {"connect_urls": 7}\r\n', b'INFO {"connect_urls": [7, null, ":"]}\r\n',
]  # fmt: skip


async def test_what_answers_instead_of_a_server_for_a_while_ends_no_connection() -> None:
    """A load balancer's page, a half handshake: the server is found again afterwards."""
    good = _address("jetstream")
    host, _, port = good.partition(":")
    strange: list[bytes] = []
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if strange:
            writer.write(strange.pop(0))
            await asyncio.sleep(0.05)
            writer.close()
            return
        upward, downward = await asyncio.open_connection(host, int(port)), (reader, writer)
        writers.update((writer, upward[1]))

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(
            pump(upward[0], downward[1]), pump(downward[0], upward[1]), return_exceptions=True
        )

    async with (
        _serving(answer) as front,
        opened(
            f"jetstream://127.0.0.1:{front}", reconnect_wait=0.05, reconnect_max=0.1
        ) as transport,
    ):
        name = topic()
        subscription, listener = await join(transport, name)
        strange += STRANGE
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(40):
            while strange or transport.health() is not None:
                await asyncio.sleep(0.05)
        await publish(transport, message(name, b"found"))
        assert payloads(await take(subscription, 1)) == [b"found"]
        assert listener.health[-1] == (True, "")


async def test_a_file_that_is_away_for_a_moment_ends_no_connection(tmp_path: Path) -> None:
    key, certificate = _certificate(tmp_path)
    authority, away = tmp_path / "ca.pem", tmp_path / "ca.away"
    authority.write_bytes(certificate.read_bytes())
    arguments = ("--tls", "--tlscert", str(certificate), "--tlskey", str(key))
    server = NatsBroker(arguments=arguments)
    server.probe = lambda url: "unasked"  # type: ignore[method-assign]  # it speaks no TLS
    try:
        with start_own(server) as broker:
            await asyncio.sleep(0.3)
            secure = broker.url.replace("nats://", "nats+tls://").replace("127.0.0.1", "localhost")
            async with opened(secure, tls_ca_file=str(authority), reconnect_max=0.3) as transport:
                authority.rename(away)
                broker.signal(signal.SIGKILL)
                assert broker.process is not None
                broker.process.wait()
                assert broker.directory is not None
                again = server.start(broker.directory, int(broker.details["port"]))
                try:
                    async with asyncio.timeout(15):
                        while "tls_ca_file" not in (transport.health() or ""):
                            await asyncio.sleep(0.05)
                    away.rename(authority)
                    async with asyncio.timeout(15):
                        while transport.health() is not None:
                            await asyncio.sleep(0.05)
                finally:
                    server.stop(again)
    except BrokerUnavailable as error:
        skip_or_fail("nats", error)


async def test_servers_that_a_server_reported_of_are_used(tmp_path: Path) -> None:
    """One host in the URL: it says that it is about to stop, and later it dies."""
    try:
        cluster = NatsCluster(tmp_path)
    except BrokerUnavailable as error:
        skip_or_fail("nats", error)
    try:
        cluster.start()
        await cluster.ready()
        async with opened(cluster.url_of(0), connect_timeout=20.0) as transport:
            name = topic()
            subscription, _ = await join(transport, name)
            await asyncio.sleep(0.5)  # the other servers are learnt of
            cluster.signal(signal.SIGUSR2, 0)  # lame duck mode
            connection = transport._connection  # type: ignore[attr-defined]
            first = connection.client
            async with asyncio.timeout(10):
                while not connection.is_connected or connection.client is first:
                    await asyncio.sleep(0.05)
            cluster.kill(0)
            await publish(transport, Message(id="1", topic=name, payload=b"x"))
            assert payloads(await take(subscription, 1)) == [b"x"]
    finally:
        cluster.stop()


@pytest.mark.parametrize("option", ["nkey_seed", "nkey_file", "credentials_file"])
@pytest.mark.parametrize("text", ["SUnonsense", "nonsense", "SUAé"])
async def test_a_seed_that_is_none_is_a_mistake_of_the_configuration(
    tmp_path: Path, option: str, text: str
) -> None:
    pytest.importorskip("nkeys")
    value = text
    if option != "nkey_seed":
        file = tmp_path / "key"
        file.write_text(text)
        value = str(file)
    with pytest.raises(ConfigError, match=option) as caught:
        await make(f"nats://{_address('nats')}", connect_timeout=1.0, **{option: value}).open()
    assert text not in f"{caught.value}".replace(option, "")


async def test_a_credentials_file_that_is_missing_is_named() -> None:
    pytest.importorskip("nkeys")
    with pytest.raises(ConfigError, match=r"credentials_file: nowhere\.creds: No such file"):
        await make("nats://127.0.0.1", credentials_file="nowhere.creds").open()
