"""What is special about core NATS, and about the connection that JetStream shares."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

import nats
import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import (
    AuthenticationError,
    CapabilityError,
    ConfigError,
    ConnectionFailedError,
    PublishError,
    PublishRefusedError,
)
from protoflow.message import Action, Settlement, SettleResult
from protoflow.testing import Listener

from tests.brokers import start_own
from tests.brokers.base import RunningBroker, free_port
from tests.brokers.nats import NatsBroker
from tests.transports.nats.harness import (
    MEGABYTE,
    ack,
    join,
    make,
    message,
    nothing,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)


def restart(broker: RunningBroker) -> RunningBroker:
    assert broker.directory is not None
    return NatsBroker().start(broker.directory, int(broker.details["port"]))


async def test_others_see_the_topic_as_the_subject_and_cloudevents_headers(url: str) -> None:
    name = topic()
    client = await nats.connect(url)
    try:
        subscription = await client.subscribe(name)
        await client.flush()
        async with opened(url) as transport:
            metadata = {
                "ce_type": "shop.v1.OrderPlaced",
                "ce_source": "/shop ü",
                "content-type": "application/protobuf",
                "correlation_id": "c-1",
            }
            await publish(transport, message(name, id="1", key=b"k", metadata=metadata))
        got = await subscription.next_msg(5)
        assert got.headers == {
            "ce-id": "1",
            "ce-specversion": "1.0",
            "ce-type": "shop.v1.OrderPlaced",
            "ce-source": "/shop%20%C3%BC",
            "ce-datacontenttype": "application/protobuf",
            "ce-partitionkey": "k",
            "correlation_id": "c-1",
        }
    finally:
        await client.close()


async def test_messages_of_others_have_an_id_and_keep_their_content_type(url: str) -> None:
    name = topic()
    client = await nats.connect(url)
    try:
        async with opened(url) as transport:
            subscription, _ = await join(transport, name)
            await client.publish(name, b"1", headers={"content-type": "application/json"})
            await client.publish(name, b"2", headers={"_watermill_message_uuid": "w-1"})
            await client.publish(name, b"3")
            first, second, third = await take(subscription, 3)
            assert first.message.id
            assert first.message.metadata["content-type"] == "application/json"
            assert second.message.id == "w-1"
            assert third.message.id != first.message.id
            await publish(transport, first.message)
            (again,) = await take(subscription, 1)
            assert again.message.id == first.message.id
            assert again.message.headers == {"content-type": "application/json"}
    finally:
        await client.close()


@pytest.mark.parametrize("value", ["two\nlines", " blank", "blank ", "\r\nNats-Msg-Id: x", "50%\n"])
async def test_metadata_that_headers_would_change_survive(url: str, value: str) -> None:
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        metadata = {"a": value, "ce_subject": value, "b": "%0A", "pf_error_message": value}
        await publish(transport, message(name, metadata=metadata))
        (delivery,) = await take(subscription, 1)
        assert {**delivery.message.metadata} == {"ce_specversion": "1.0", **metadata}


async def test_a_name_that_cannot_be_a_header_is_refused(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        bad = message(name, metadata={"no good": "x"})
        errors = await transport.submit([message(name), bad, message(name)])
        assert [type(error) for error in errors] == [type(None), PublishRefusedError, type(None)]
        assert "no good" in str(errors[1])


async def test_headers_count_against_max_payload(url: str) -> None:
    async with opened(url) as transport:
        limit = transport.capabilities.max_message_bytes
        assert limit == MEGABYTE
        large = message(topic(), bytes(limit - 100), metadata={"a": "x" * 200})
        (error,) = await transport.submit([large])
        assert isinstance(error, PublishRefusedError)
        assert "max_payload of 1048576" in str(error)
        await publish(transport, message(topic()))
        assert transport.health() is None


async def test_a_mandatory_message_without_subscriber_is_an_error(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        unheard = message(name, mandatory=True)
        first, second = await transport.submit([unheard, message(name)])
        assert isinstance(first, PublishError)
        assert "nobody is subscribed" in str(first)
        assert second is None
        await join(transport, name)
        await publish(transport, unheard)


async def test_delays_and_order_are_refused(url: str) -> None:
    async with opened(url) as transport:
        (error,) = await transport.submit([message(topic(), delay=1.0)])
        assert isinstance(error, PublishRefusedError)
        with pytest.raises(CapabilityError, match="jetstream://"):
            await join(transport, topic(), ordering=Ordering.PER_KEY)


async def test_what_is_given_back_comes_again_until_the_subscription_stops(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        await publish(transport, message(name))
        (delivery,) = await take(subscription, 1)
        nack = Settlement(delivery, Action.NACK, delay=0.3, failures=1)
        assert await subscription.settle([nack]) == [SettleResult.DONE]
        await nothing(subscription, 0.2)
        (delivery,) = await take(subscription, 1)
        assert delivery.failures == 1
        await subscription.stop()
        release = Settlement(delivery, Action.RELEASE)
        assert await subscription.settle([release]) == [SettleResult.LOST]


async def test_what_came_before_stop_is_still_handed_out(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        await publish(transport, *[message(name, b"%d" % n) for n in range(10)])
        await subscription.stop()
        assert len(await take(subscription, 10)) == 10
        assert list(await subscription.receive(1, MEGABYTE)) == []


async def test_in_flight_is_bounded(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name, max_in_flight=3)
        await publish(transport, *[message(name) for _ in range(10)])
        batch = await take(subscription, 3)
        await nothing(subscription)
        await ack(subscription, *batch[:2])
        assert len(await take(subscription, 2)) == 2


async def test_a_slow_consumer_drops_within_its_bound_and_says_so(url: str) -> None:
    async with opened(url, pending_messages=10) as transport:
        name = topic()
        subscription, listener = await join(transport, name)
        await publish(transport, *[message(name, b"%d" % n) for n in range(50)])
        assert (False, f"{name}/billing: slow consumer, messages are dropped") in listener.health
        assert payloads(await take(subscription, 10)) == [b"%d" % n for n in range(10)]
        await nothing(subscription)
        assert listener.health[-1] == (True, "")


async def test_broadcast_reaches_every_process(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        name = topic()
        members = [(await join(transport, name, broadcast=True))[0] for transport in (one, two)]
        await publish(one, message(name))
        for member in members:
            assert len(await take(member, 1)) == 1


async def test_a_restarted_server_is_found_again(own: RunningBroker) -> None:
    async with opened(own.url) as transport:
        name = topic()
        subscription, listener = await join(transport, name)
        await publish(transport, message(name, b"1"))
        own.signal(signal.SIGKILL)
        assert own.process is not None
        own.process.wait()
        while transport.health() is None:
            await asyncio.sleep(0.02)
        waiting = transport.submit([message(name, b"2")])
        await asyncio.sleep(0.3)
        again = restart(own)
        try:
            assert await asyncio.wait_for(waiting, 10) == [None]
            assert payloads(await take(subscription, 2)) in ([b"1", b"2"], [b"2"])
            assert [healthy for healthy, _ in listener.health] == [True, False, True]
        finally:
            NatsBroker().stop(again)


async def test_a_frozen_server_is_noticed(own: RunningBroker) -> None:
    async with opened(own.url, ping_interval=0.3, max_pings=2, publish_timeout=1.0) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        own.signal(signal.SIGSTOP)
        try:
            (error,) = await asyncio.wait_for(transport.submit([message(name)]), 5)
            assert isinstance(error, PublishError)
            while transport.health() is None:
                await asyncio.sleep(0.02)
        finally:
            own.signal(signal.SIGCONT)
        while transport.health() is not None:
            await asyncio.sleep(0.02)
        await publish(transport, message(name, b"after"))
        while payloads(await take(subscription, 1)) != [b"after"]:
            pass


async def test_an_unreachable_server_is_one_error_in_time() -> None:
    transport = make(f"nats://127.0.0.1:{free_port()}", connect_timeout=0.5)
    async with asyncio.timeout(3):
        with pytest.raises(ConnectionFailedError, match=r"not reachable within 0\.5 s"):
            await transport.open()


@pytest.mark.parametrize(
    ("arguments", "good", "bad"),
    [
        (("--user", "ann", "--pass", "s3cret"), "ann:s3cret@", "ann:wr0ng@"),
        (("--auth", "s3cret"), "s3cret@", "wr0ng@"),
    ],
)
async def test_credentials(arguments: tuple[str, ...], good: str, bad: str) -> None:
    server = NatsBroker(arguments=arguments, credentials=good.rstrip("@"))
    if "--auth" in arguments:
        server.probe = lambda url: "unasked"  # type: ignore[method-assign]
    with start_own(server) as broker:
        address = broker.url.rpartition("@")[2]
        await asyncio.sleep(0.2)
        async with opened(f"nats://{good}{address}") as transport:
            await publish(transport, message(topic()))
        for wrong in (f"nats://{bad}{address}", f"nats://{address}"):
            with pytest.raises(AuthenticationError) as caught:
                await make(wrong).open()
            shown = f"{caught.value} {caught.value.__cause__!r}"
            assert "wr0ng" not in shown
            assert "s3cret" not in shown


async def test_rights_that_are_missing_are_named(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(
        'authorization { users: [ { user: ann, password: pw, permissions: { publish: ["ok", '
        '"_INBOX.>"], subscribe: ["ok", "_INBOX.>"] } } ] }'
    )
    server = NatsBroker(arguments=("-c", str(config)), credentials="ann:pw")
    with start_own(server) as broker:
        async with opened(broker.url) as transport:
            errors = await transport.submit([message("ok"), message("Secret"), message("ok")])
            assert [type(error) for error in errors] == [
                type(None),
                PublishRefusedError,
                type(None),
            ]
            with pytest.raises(AuthenticationError, match="secret"):
                await transport.subscribe(settings_of("secret"), Listener())


async def test_a_right_that_is_taken_away_may_come_back(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    user = "user: ann, password: pw, permissions: {{ subscribe: {} }}"
    text = "authorization {{ users: [ {{ " + user + " }} ] }}"
    config.write_text(text.format('">"'))
    server = NatsBroker(arguments=("-c", str(config)), credentials="ann:pw")
    with start_own(server) as broker:
        async with opened(broker.url) as transport:
            name = topic()
            subscription, listener = await join(transport, name)
            config.write_text(text.format('["_INBOX.>"]'))
            broker.signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while not listener.health or "not authorised" not in listener.health[-1][1]:
                    await asyncio.sleep(0.05)
            config.write_text(text.format('">"'))
            broker.signal(signal.SIGHUP)
            async with asyncio.timeout(15):
                while not listener.health[-1][0]:
                    await asyncio.sleep(0.05)
            await publish(transport, message(name, b"again"))
            assert payloads(await take(subscription, 1)) == [b"again"]


def _certificate(directory: Path) -> tuple[Path, Path]:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost"]
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        [*command, "-addext", names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return key, certificate


async def test_tls(tmp_path: Path) -> None:
    key, certificate = _certificate(tmp_path)
    arguments = ("--tls", "--tlscert", str(certificate), "--tlskey", str(key))
    server = NatsBroker(arguments=arguments)
    server.probe = lambda url: "unasked"  # type: ignore[method-assign]  # it speaks no TLS
    with start_own(server) as broker:
        await asyncio.sleep(0.3)
        secure = broker.url.replace("nats://", "nats+tls://")
        async with opened(secure, tls_ca_file=str(certificate)) as transport:
            await publish(transport, message(topic()))
        with pytest.raises(ConnectionFailedError, match="TLS"):
            await make(secure).open()


async def test_a_server_without_tls_gets_no_credentials(url: str) -> None:
    address = url.rpartition("/")[2]
    with pytest.raises(ConnectionFailedError, match="does not demand TLS"):
        await make(f"nats+tls://ann:s3cret@{address}").open()


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"nonsense": 1}, "unknown option 'nonsense'"),
        ({"username": "a", "token": "b"}, "options username and token exclude each other"),
        ({"ping_interval": 0}, "option ping_interval must be above 0"),
        ({"tls_key_file": "k"}, "option tls_key_file needs tls_cert_file"),
        ({"prefix": "a b"}, "option prefix must be"),
    ],
)
def test_options_are_checked(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        make("nats://127.0.0.1", **options)
