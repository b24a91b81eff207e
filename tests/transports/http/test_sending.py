"""Messages go to the targets of their topics."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from protoflow import Config, wire
from protoflow.connection import Connection
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, RetryPolicy
from protoflow.errors import CapabilityError, PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.observability.prometheus import Exposition
from protoflow.transports.http import targets as sending_targets
from protoflow.transports.http.address_guard import AddressGuard
from protoflow.transports.http.targets import DisabledTargets, retry_after
from standardwebhooks import Webhook

from tests.brokers.base import free_port
from tests.transports.http.conftest import ORDERS as ORDERS
from tests.transports.http.conftest import (
    OTHER,
    SECRET,
    TYPE,
    Lab,
    Runs,
    Subscriber,
    task,
    until,
)


@asynccontextmanager
async def sending(lab: Lab, *targets: dict[str, Any], **options: Any) -> AsyncIterator[Connection]:
    settings = {"url": "http://", "targets": [{"topic": "orders", **one} for one in targets]}
    async with Connection(lab.config(**{**settings, **options})) as connection:
        yield connection


async def test_a_message_is_a_cloudevent_in_binary_mode(lab: Lab, subscriber: Subscriber) -> None:
    async with sending(lab, {"url": subscriber.url}) as connection:
        (id,) = await connection.publish_outputs(ORDERS, [task("1", key="k")])
    ((headers, body),) = subscriber.requests
    assert body == b"\n\x011"
    assert headers["ce-id"] == headers["webhook-id"] == id
    assert (headers["ce-type"], headers["ce-specversion"]) == (TYPE, "1.0")
    assert (headers["content-type"], headers["ce-partitionkey"]) == (wire.PROTOBUF, "k")
    assert "webhook-signature" not in headers


async def test_a_target_may_have_structured_mode_a_token_and_signatures(
    lab: Lab, subscriber: Subscriber
) -> None:
    target = {
        "url": subscriber.url, "mode": "structured", "token": "t0ken", "secrets": [SECRET, OTHER],
    }  # fmt: skip
    async with sending(lab, target) as connection:
        (id,) = await connection.publish_outputs(ORDERS, [task("1")])
    ((headers, body),) = subscriber.requests
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["authorization"] == "Bearer t0ken"
    assert json.loads(body)["id"] == id
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(body, headers)["id"] == id


async def test_every_target_of_a_topic_gets_it_and_a_star_gets_the_rest(
    lab: Lab, subscriber: Subscriber
) -> None:
    base = subscriber.url
    targets = [
        {"url": f"{base}/1"}, {"url": f"{base}/2"}, {"topic": "*", "url": f"{base}/any/{{topic}}"},
    ]  # fmt: skip
    async with sending(lab, *targets) as connection:
        await connection.publish_outputs(ORDERS, [task("1")])
        assert len(subscriber.requests) == 2
        await connection.publish(Message(id="7", topic="other", payload=b"x"))
        assert len(subscriber.requests) == 3
        await connection.publish(Message(id="8", topic="orders..billing..dead", payload=b"x"))
        assert len(subscriber.requests) == 3, "dead letters are not for a star"


async def test_a_topic_without_a_target_is_nobodys(lab: Lab) -> None:
    async with sending(lab) as connection:
        await connection.publish_outputs(ORDERS, [task("1")])
    config = Config(environ={}, transport="http://", require_subscriber=True)
    async with Connection(config) as connection:
        with pytest.raises(PublishError, match="orders has no target"):
            await connection.publish_outputs(ORDERS, [task("1")])


async def test_a_target_that_is_gone_is_reported_and_the_service_stays_ready(
    lab: Lab, subscriber: Subscriber
) -> None:
    async def work(order: Any, _context: Any) -> Any:
        return order

    subscriber.answers = [web.Response(status=410)]
    targets = [{"topic": "results", "url": subscriber.url}]
    async with lab.receiving(work, results="results", targets=targets) as service:
        assert service.health().problems == {}
        assert (await lab.post('"1"'))[0] == 204
        health = service.health()
        metrics = Exposition(service.reporter).render()[0].decode()
    assert health.ready
    assert "answered 410" in health.problems[f"target {subscriber.url}"]
    assert "protoflow_transport_warnings 1.0" in metrics


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, PublishError), (404, PublishError), (302, PublishError), (400, PublishRefusedError),
     (413, PublishRefusedError), (422, PublishRefusedError)],
)  # fmt: skip
async def test_only_2xx_is_a_success(
    lab: Lab, subscriber: Subscriber, status: int, kind: type[Exception]
) -> None:
    headers = {"Location": f"{subscriber.url}/elsewhere"}
    subscriber.answers = [web.Response(status=status, headers=headers)]
    async with sending(lab, {"url": subscriber.url}) as connection:
        with pytest.raises(kind, match=str(status)) as caught:
            await connection.publish_outputs(ORDERS, [task("1")])
        assert type(caught.value) is kind
        assert len(subscriber.requests) == 1, "a redirect is not followed"
        await connection.publish_outputs(ORDERS, [task("1")])


async def test_a_target_that_is_gone_gets_nothing_more(
    lab: Lab, subscriber: Subscriber, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"disabled_file": str(tmp_path / "disabled.json")}
    subscriber.answers = [web.Response(status=410)]
    for _ in range(2):
        async with sending(lab, {"url": subscriber.url}, **kept) as connection:
            await connection.publish_outputs(ORDERS, [task("1")])
            assert len(subscriber.requests) == 1, "it stays disabled after a restart"
    assert subscriber.url in json.loads((tmp_path / "disabled.json").read_text())
    assert "a target is gone" in caplog.text
    both = [{"url": subscriber.url}, {"url": f"{subscriber.url}/2"}]
    async with sending(lab, *both, **kept) as connection:
        await connection.publish_outputs(ORDERS, [task("1")])
    assert len(subscriber.requests) == 2, "other targets get theirs"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_target_that_asks_to_wait_is_left_alone(
    lab: Lab, subscriber: Subscriber, status: int
) -> None:
    wait = web.Response(status=status, headers={"Retry-After": "1"})
    subscriber.answers = [wait]
    loop = asyncio.get_running_loop()
    async with sending(lab, {"url": subscriber.url}) as connection:
        with pytest.raises(PublishError, match=str(status)):
            await connection.publish_outputs(ORDERS, [task("1")])
        started = loop.time()
        await connection.publish_outputs(ORDERS, [task("2")])
        assert loop.time() - started > 0.9
    subscriber.answers = [web.Response(status=status, headers={"Retry-After": "100"})]
    async with sending(lab, {"url": subscriber.url}, publish_timeout=5) as connection:
        for text in (str(status), "asked to wait for another"):
            with pytest.raises(PublishError, match=text):
                await connection.publish_outputs(ORDERS, [task("1")])
    assert len(subscriber.requests) == 3


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("120", 0.0) == 120.0
    assert retry_after("Thu, 01 Jan 1970 00:02:00 GMT", 60.0) == 60.0
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT", 60.0) == 0.0
    for strange in (None, "", "soon", "-1", "1.5", "9" * 400, "Thu, 99 Jan"):
        assert retry_after(strange, 0.0) >= 0.0


async def test_a_target_that_does_not_answer_is_given_up(lab: Lab, subscriber: Subscriber) -> None:
    subscriber.delay = 5.0
    async with sending(lab, {"url": subscriber.url}, request_timeout=0.2) as connection:
        with pytest.raises(PublishError, match="did not answer in time"):
            await connection.publish_outputs(ORDERS, [task("1")])


async def test_a_long_answer_is_not_read(lab: Lab, subscriber: Subscriber) -> None:
    subscriber.answers = [web.Response(status=200, body=bytes(20_000_000))]
    async with sending(lab, {"url": subscriber.url}) as connection:
        await connection.publish_outputs(ORDERS, [task("1")])
        await connection.publish_outputs(ORDERS, [task("2")])
    assert len(subscriber.requests) == 2


async def test_outputs_wait_for_a_target_that_is_down(lab: Lab) -> None:
    """The handler ran once; its output is published again until the target is up."""

    async def work(order: Any, _context: Any) -> Any:
        runs.seen.append(order.value)
        return order

    runs, subscriber = Runs(), Subscriber()
    targets = [{"topic": "results", "url": subscriber.url}]
    async with lab.receiving(work, results="results", targets=targets):
        asking = asyncio.create_task(lab.post('"1"'))
        await until(lambda: runs.seen)
        await asyncio.sleep(0.3)
        assert not asking.done(), "the output is not confirmed"
        await subscriber.start()
        try:
            assert (await asking)[0] == 204
        finally:
            await subscriber.stop()
    assert runs.seen == ["1"]
    assert [body for _, body in subscriber.requests] == [b"\n\x011"]


async def test_a_delay_is_refused(lab: Lab, subscriber: Subscriber) -> None:
    from datetime import timedelta

    async with sending(lab, {"url": subscriber.url}) as connection:
        with pytest.raises(CapabilityError, match="no delayed publish"):
            await connection.publish_outputs(ORDERS, [task("1", delay=timedelta(seconds=1))])
    assert subscriber.requests == []


FORBIDDEN = [
    "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1",
    "::1", "::", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "::127.0.0.1", "not an address", "",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_not_public_is_forbidden(address: str) -> None:
    assert not AddressGuard([]).allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert AddressGuard([]).allows(address)


def test_networks_can_be_allowed() -> None:
    guard = AddressGuard(["10.1.0.0/16", "fc00::/7"])
    assert guard.allows("10.1.2.3")
    assert guard.allows("::ffff:10.1.2.3")
    assert guard.allows("fc00::1")
    assert not guard.allows("10.2.0.1")
    assert not guard.allows("127.0.0.1")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0"]
)
async def test_no_spelling_reaches_this_machine(
    lab: Lab, subscriber: Subscriber, host: str
) -> None:
    target = {"url": f"http://{host}:{subscriber.port}/"}
    async with sending(lab, target, allowed_networks=[]) as connection:
        with pytest.raises(PublishError):
            await connection.publish_outputs(ORDERS, [task("1")])
    assert subscriber.requests == []


async def test_a_name_whose_address_changes_does_not_pass(
    lab: Lab, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address is checked when the connection is made."""
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", subscriber.port))]
    private = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", subscriber.port))]
    answers = [public, private]
    loop = asyncio.get_running_loop()

    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    await loop.getaddrinfo("rebinds.example", 80)  # as a check beforehand would
    target = {"url": f"http://rebinds.example:{subscriber.port}/"}
    async with sending(lab, target, allowed_networks=[]) as connection:
        with pytest.raises(PublishError, match=r"127\.0\.0\.1 is not public"):
            await connection.publish_outputs(ORDERS, [task("1")])
    assert subscriber.requests == []


async def test_nobody_listens_is_an_error_that_names_the_target(lab: Lab) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    async with sending(lab, {"url": url}) as connection:
        with pytest.raises(PublishError, match=url):
            await connection.publish_outputs(ORDERS, [task("1")])


async def test_dead_letters_with_a_name_of_their_own_are_not_for_a_star(
    lab: Lab, subscriber: Subscriber
) -> None:
    policy = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=1), dead_letter=DeadLetterPolicy(topic="failed")
    )
    targets = [{"topic": "*", "url": subscriber.url}]
    async with lab.receiving(Runs().work, policy=policy, targets=targets):
        assert (await lab.post('"bad"'))[0] == 500
    assert subscriber.requests == []


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 5\r\n\r\n", b"Content-Length: 50\r\n\r\nhello",
     b"Content-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello"],
    ids=["late", "cut", "not gzip"],
)  # fmt: skip
async def test_2xx_counts_whatever_becomes_of_the_rest_of_the_answer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    monkeypatch.setattr(sending_targets, "_REST", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + rest)
        if rest.endswith(b"\n"):
            await reader.read()  # until the client disconnects
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        target = {"url": f"http://127.0.0.1:{port}/"}
        async with sending(lab, target, request_timeout=5) as connection:
            await connection.publish_outputs(ORDERS, [task("1")])


async def test_the_query_of_a_url_is_shown_nowhere(
    lab: Lab, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber.answers = [web.Response(status=500), web.Response(status=410)]
    target = {"url": f"{subscriber.url}?key=4711"}
    async with sending(lab, target) as connection:
        with pytest.raises(PublishError, match="answered 500") as caught:
            await connection.publish_outputs(ORDERS, [task("1")])
        await connection.publish_outputs(ORDERS, [task("1")])
        warnings = connection.transport.warnings()  # type: ignore[attr-defined]
    assert len(warnings) == 1
    records = [vars(record) for record in caplog.records]
    assert "4711" not in f"{caught.value} {warnings} {records}"


async def test_a_topic_in_a_url_is_one_segment(lab: Lab) -> None:
    target = {"topic": "*", "url": f"http://127.0.0.1:{free_port()}/{{topic}}/end"}
    async with sending(lab, target) as connection:
        with pytest.raises(PublishError, match="/a%2F%3Fb%23c/end"):
            await connection.publish(Message(id="7", topic="a/?b#c", payload=b"x"))


def test_processes_share_the_file_of_disabled_targets(tmp_path: Path) -> None:
    path = str(tmp_path / "disabled.json")
    first, second = DisabledTargets(path), DisabledTargets(path)
    first.load()
    second.load()
    first.add("http://a", 0.0)
    second.add("http://b", 0.0)
    assert {*json.loads(Path(path).read_text())} == {"http://a", "http://b"}
