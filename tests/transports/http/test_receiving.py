"""Requests are answered when their messages are settled."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Context, Service, transports
from protoflow.config.secret import Secret
from protoflow.config.url import TransportURL
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, RetryPolicy
from protoflow.errors import CapabilityError, ConfigError
from protoflow.http_server import bodies
from protoflow.testing.listener import Listener
from protoflow.testing.transports.tasks import task_handler
from protoflow.transport.interface import (
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports.http import hand_off
from protoflow.transports.http.codec import BATCH
from protoflow.transports.http.signatures import Signer, signature_headers
from protoflow.transports.http.subscription import HttpSubscription

from tests.transports.http.conftest import OTHER, SECRET, TYPE, Lab, Runs, Subscriber, until

ONCE = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
ALONE = DeliveryPolicy(concurrency=1, retry=RetryPolicy(max_attempts=1))


def event(value: str, id: str = "1") -> dict[str, Any]:
    return {"id": id, "source": "/s", "type": TYPE, "specversion": "1.0", "data": value}


def signed(body: str, secret: str = SECRET, age: float = 0.0, id: str = "m1") -> dict[str, str]:
    timestamp = int(time.time() - age)
    return signature_headers([Signer(Secret(secret))], id, timestamp, body.encode())


async def test_binary_structured_batched_and_plain_requests(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work):
        binary = {"ce-id": "b1", "ce-source": "/s", "ce-type": TYPE, "ce-specversion": "1.0"}
        assert (await lab.post('"binary"', **binary))[0] == 204
        structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
        assert (await lab.post(json.dumps(event("structured", "s1")), **structured))[0] == 204
        batch = json.dumps([event("first", "1"), event("second", "2")])
        assert (await lab.post(batch, content_type=BATCH))[0] == 204
        assert (await lab.post("[]", content_type=BATCH))[0] == 204
        assert (await lab.post('"plain"', webhook_id="p1"))[0] == 204
    assert sorted(runs.done) == ["binary", "first", "plain", "second", "structured"]
    assert [one.message.id for one in runs.contexts] == ["b1", "s1", "1", "2", "p1"]


async def test_the_answer_waits_for_every_group(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, groups=("billing", "mailing")):
        asking = asyncio.create_task(lab.post('"slow"'))
        await until(lambda: len(runs.seen) == 2)
        await asyncio.sleep(0.1)
        assert not asking.done()
        runs.release.set()
        assert (await asking)[0] == 204
    assert runs.done == ["slow", "slow"]


async def test_a_failure_is_the_senders_to_repeat(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work) as service:
        status, headers, body = await lab.post('"bad"')
        assert (status, headers["Content-Type"]) == (500, "application/problem+json")
        assert "4711" not in body
        assert runs.seen == ["bad"] * 3, "it is retried while the request is open"
        assert (await lab.post('"good"'))[0] == 204
        assert service.health().ready, "a message that fails stops nothing"


@pytest.mark.parametrize("body", ["{", "[1, 2]"])
async def test_what_no_repetition_helps_is_422(lab: Lab, body: str) -> None:
    async with lab.receiving(Runs().work):
        assert (await lab.post(body))[0] == 422


async def test_malformed_requests_are_refused_before_any_handler(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work):
        assert (await lab.post("{", content_type="application/cloudevents+json"))[0] == 400
        batch = json.dumps([event("first"), {"id": "no more"}])
        status, _, text = await lab.post(batch, content_type=BATCH)
        assert status == 400
        assert "item 1 of the batch" in text
        assert (await lab.post("{}", content_type="application/cloudevents+xml"))[0] == 415
        assert (await lab.post("{}", content_encoding="gzip"))[0] == 415
        assert (await lab.post('"x"', "/elsewhere"))[0] == 404
        async with lab.client.get(f"{lab.url}/orders") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST, OPTIONS"
    assert runs.seen == []


async def test_signatures_are_required_and_rotated(lab: Lab) -> None:
    runs = Runs()
    body = '"signed"'
    async with lab.receiving(runs.work, secrets=[SECRET, OTHER]):
        for secret in (SECRET, OTHER):
            assert (await lab.post(body, **signed(body, secret)))[0] == 204
        assert (await lab.post(body))[0] == 401
        assert (await lab.post(body, **signed(body + " ")))[0] == 401
        assert (await lab.post(body, **signed(body, age=400)))[0] == 401
        assert (await lab.post(body, **signed(body, "d3Jvbmc=")))[0] == 401
    assert len(runs.done) == 2


async def test_a_token_is_required(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, token="t0ken"):
        assert (await lab.post('"x"', authorization="Bearer t0ken"))[0] == 204
        for wrong in ("Bearer t0kem", "Basic t0ken", "Bearer \u00fc", ""):
            status, headers, _ = await lab.post('"x"', authorization=wrong)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert len(runs.done) == 1


async def test_each_topic_may_have_its_own_path_secrets_and_token(lab: Lab) -> None:
    own = [{"topic": "orders", "path": "/from/shop", "secrets": OTHER, "token": "own"}]
    async with lab.receiving(Runs().work, secrets=[SECRET], endpoints=own):
        headers = signed('"x"', OTHER)
        assert (await lab.post('"x"', "/from/shop", authorization="Bearer own", **headers))[
            0
        ] == 204
        headers = signed('"x"', SECRET)
        assert (await lab.post('"x"', "/from/shop", authorization="Bearer own", **headers))[
            0
        ] == 401
        assert (await lab.post('"x"'))[0] == 404


async def test_a_large_body_is_refused_before_it_is_read(lab: Lab) -> None:
    async with lab.receiving(Runs().work, max_message_bytes=100):
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n")
        assert b" 413 " in await reader.readline()  # nothing of the body was sent
        writer.close()

        async def chunks() -> Any:
            for _ in range(20):
                yield bytes(10)

        async with lab.client.post(f"{lab.url}/orders", data=chunks()) as response:
            assert response.status == 413


async def test_more_than_is_allowed_in_flight_comes_later(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, policy=ALONE) as service:
        most = held(service).settings.max_in_flight
        slow = [asyncio.create_task(lab.post('"slow"')) for _ in range(most)]
        await until(lambda: held(service).load == most)
        status, headers, _ = await lab.post('"more"')
        assert (status, headers["Retry-After"]) == (429, "1")
        runs.release.set()
        assert {answer[0] for answer in await asyncio.gather(*slow)} == {204}
        assert (await lab.post('"more"'))[0] == 204


async def half_sent(lab: Lab, announced: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request of which only the headers have come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    headers = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {announced}"
    writer.write(f"POST /orders HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize(("bodies", "announced"), [(3, 3), (2, 1000)], ids=["number", "bytes"])
@pytest.mark.parametrize("stored", [False, True], ids=["handled", "stored"])
async def test_bodies_that_are_being_read_are_bounded(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bodies: int, announced: int,
    stored: bool,
) -> None:  # fmt: skip
    options = {"hand_off": f"sqlite:///{tmp_path}/inbox.db"} if stored else {}
    monkeypatch.setattr(hand_off, "_MOST", 3)
    monkeypatch.setattr(hand_off, "_MOST_BYTES", 2000)
    config = lab.config(max_message_bytes=1000, **options)
    service = Service(dataclasses.replace(config, max_in_flight=3, max_in_flight_bytes=2000))
    service.register(task_handler(Runs().work, "orders", "billing", ALONE))
    async with service:
        halves = [await half_sent(lab, announced) for _ in range(bodies)]
        transport: Any = service.transport
        room = transport._inbox.room if stored else held(service).room
        await until(lambda: room._messages == bodies)
        status, headers, _ = await lab.post('"x"' + " " * (announced - 3))
        assert (status, headers["Retry-After"]) == (429, "1")
        for reader, writer in halves:
            writer.write(b'"x"' + b" " * (announced - 3))
            assert (b" 202 " if stored else b" 204 ") in await reader.readline()
            writer.close()
        assert (await lab.post('"x"'))[0] == (202 if stored else 204)


def held(service: Any) -> HttpSubscription:
    """The only subscription of a service."""
    subscription: HttpSubscription
    (subscription,) = service.transport._subscriptions
    return subscription


async def test_a_service_that_stops_finishes_what_runs_and_takes_nothing(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, policy=ALONE) as service:
        first = asyncio.create_task(lab.post('"slow"'))
        await runs.started.wait()
        second = asyncio.create_task(lab.post('"second"'))
        await until(lambda: held(service).load == 2)
        stopping = asyncio.create_task(service.stop())
        status, headers, _ = await second
        assert (status, headers["Retry-After"]) == (503, "2")
        status, headers, _ = await lab.post('"third"')
        assert (status, headers["Retry-After"]) == (503, "2")
        runs.release.set()
        assert (await first)[0] == 204
        await stopping
    assert runs.done == ["slow"]


async def test_a_sender_that_disconnects_cancels_its_message(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work) as service:
        asking = asyncio.create_task(lab.post('"slow"'))
        await runs.started.wait()
        asking.cancel()
        await until(lambda: runs.cancelled)
        await until(lambda: not held(service).load)
        runs.release.set()
        assert (await lab.post('"slow"'))[0] == 204, "it sends again"
    assert runs.done == ["slow"]


async def test_a_request_is_answered_in_time(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, answer_timeout=0.2):
        status, headers, _ = await lab.post('"slow"')
        assert (status, headers["Retry-After"]) == (503, "5")
        await until(lambda: runs.cancelled)


async def test_a_body_that_comes_slowly_is_given_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    runs = Runs()
    async with lab.receiving(runs.work):
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(3):
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        assert (await lab.post('"x"'))[0] == 204
    assert runs.done == ["x"]


async def test_senders_ask_for_permission(lab: Lab) -> None:
    async with lab.receiving(Runs().work, allowed_origins=["shop.example"], allowed_rate=120):

        async def ask(origin: str) -> Any:
            headers = {
                "WebHook-Request-Origin": origin, "WebHook-Request-Rate": "1000",
                "WebHook-Request-Callback": lab.url,
            }  # fmt: skip
            async with lab.client.options(f"{lab.url}/orders", headers=headers) as response:
                assert response.headers["Allow"] == "POST, OPTIONS"
                return response.headers

        allowed = await ask("shop.example")
        assert allowed["WebHook-Allowed-Origin"] == "shop.example"
        assert allowed["WebHook-Allowed-Rate"] == "120"
        assert "WebHook-Allowed-Origin" not in await ask("other.example")


async def test_pages_of_browsers_may_not_send_to_this_machine(lab: Lab) -> None:
    async with lab.receiving(Runs().work):
        assert (await lab.post('"x"', origin="https://evil.example"))[0] == 403


async def test_other_machines_need_to_be_known(lab: Lab) -> None:
    url = f"http://0.0.0.0:{lab.port}"
    with pytest.raises(ConfigError, match="would be received from anyone; set secrets or token"):
        async with lab.receiving(Runs().work, url=url):
            pass
    async with lab.receiving(Runs().work, url=url, allow_unsigned=True):
        assert (await lab.post('"x"'))[0] == 204


async def test_a_port_that_is_taken_is_an_error_with_its_name(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", lab.port))
        taken.listen()
        with pytest.raises(ConfigError, match=f"127.0.0.1:{lab.port} cannot be served"):
            async with lab.receiving(Runs().work):
                pass


async def test_two_services_of_one_process_share_a_port(lab: Lab) -> None:
    first, second = Runs(), Runs()
    async with lab.receiving(first.work), lab.receiving(second.work, groups=("mailing",)):
        assert (await lab.post('"both"'))[0] == 204
    assert first.done == second.done == ["both"]
    async with lab.receiving(first.work, topic="orders"):
        with pytest.raises(ConfigError, match="receives orders already, or with other secrets"):
            async with lab.receiving(second.work, groups=("mailing",), token="other"):
                pass


async def test_a_receiver_that_restarts_gets_what_is_sent_again(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work):
        assert (await lab.post('"1"'))[0] == 204
    with pytest.raises(OSError, match="Cannot connect"):
        await lab.post('"2"')
    async with lab.receiving(runs.work):
        assert (await lab.post('"2"'))[0] == 204
    assert runs.done == ["1", "2"]


@pytest.mark.parametrize("options", [
    {"answer_timeout": 0}, {"secrets": ["not base64!"]}, {"endpoints": [{"path": "/x"}]},
    {"endpoints": [{"topic": "a", "path": "x"}]}, {"endpoints": ["a"]},
    {"endpoints": [{"topic": "a"}, {"topic": "a"}]}, {"targets": [{"topic": "a"}]},
    {"targets": [{"topic": "a", "url": "ftp://h/"}]}, {"targets": [{"topic": "a", "url": "x"}]},
    {"targets": [{"topic": "a", "url": "https://user:pw@h/"}]}, {"allowed_networks": ["10.1"]},
    {"targets": [{"topic": "a", "url": "https://h/", "mode": "other"}]}, {"allowed_rate": -1},
    {"server_key_file": "k.pem"}, {"hand_off": "memory://"}, {"unknown": 1},
    {"targets": [{"topic": "a", "url": "https://h/", "sekret": "x"}]},
])  # fmt: skip
async def test_mistakes_in_options_stop_the_start(lab: Lab, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"transport: http: .*option") as caught:
        async with lab.receiving(Runs().work, **options):
            pass
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("stored", [False, True], ids=["handled", "stored"])
async def test_a_topic_of_an_option_that_no_handler_uses_is_warned_of(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture, stored: bool
) -> None:
    targets = [
        {"topic": topic, "url": "https://h/"}
        for topic in ("*", "results", "reslts", "orders..billing..dead")
    ]
    endpoints = [{"topic": topic, "path": f"/at/{topic}"} for topic in ("orders", "ordrs")]
    store = {"hand_off": f"sqlite:///{tmp_path}/inbox.db"} if stored else {}
    options: dict[str, Any] = {"targets": targets, "endpoints": endpoints, **store}
    async with lab.receiving(Runs().work, results="results", **options):
        pass
    warned = [vars(one) for one in caplog.records if "not used by any handler" in one.message]
    assert [(one["option"], one["topic"]) for one in warned] == [
        ("endpoints", "ordrs"), ("targets", "reslts"),
    ]  # fmt: skip


async def test_order_is_refused(lab: Lab) -> None:
    from protoflow.contract.spec import Ordering

    with pytest.raises(CapabilityError, match="http cannot keep order per key"):
        async with lab.receiving(Runs().work, policy=DeliveryPolicy(ordering=Ordering.PER_KEY)):
            pass


async def test_https_is_served_with_a_certificate(lab: Lab) -> None:
    url = lab.url.replace("http:", "https:")
    with pytest.raises(ConfigError, match="needs option server_cert_file"):
        async with lab.receiving(Runs().work, url=url):
            pass
    with pytest.raises(ConfigError, match=r"none\.pem cannot be loaded: No such file"):
        async with lab.receiving(Runs().work, url=url, server_cert_file="none.pem"):
            pass


async def test_a_dead_letter_topic_may_have_a_target(lab: Lab, subscriber: Subscriber) -> None:
    runs = Runs()
    targets = [{"topic": "orders..billing..dead", "url": subscriber.url}]
    async with lab.receiving(runs.work, targets=targets):
        assert (await lab.post('"bad"', webhook_id="w1"))[0] == 204
    ((headers, body),) = subscriber.requests
    assert body == b'"bad"'
    assert headers["webhook-id"] == "w1"
    metadata = json.loads(headers["message-metadata"])
    assert (metadata["pf_original_topic"], metadata["pf_attempt"]) == ("orders", "3")


async def test_a_message_that_fails_is_not_taken_for_another_with_its_id(lab: Lab) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, policy=ONCE):
        slow = asyncio.create_task(lab.post('"slow"', webhook_id="same"))
        await runs.started.wait()
        assert (await lab.post('"bad"', webhook_id="same"))[0] == 500
        runs.release.set()
        assert (await slow)[0] == 204


async def test_topics_with_one_dead_letter_topic_are_distinguished(lab: Lab) -> None:
    runs = Runs()
    policy = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=1), dead_letter=DeadLetterPolicy(topic="failed")
    )
    service = Service(lab.config())

    async def work(text: str, context: Context) -> None:
        await runs.work(StringValue(value=text), context)

    for topic in ("orders", "returns"):
        service.register_json_handler(
            topic, topic, work, type=str, group="billing", delivery=policy
        )
    async with service:
        for topic in ("orders", "returns"):
            assert (await lab.post('"bad"', f"/{topic}"))[0] == 500


async def test_a_topic_whose_subscription_is_not_made_yet_comes_later(lab: Lab) -> None:
    transport = transports.create(TransportSettings(url=TransportURL.parse(lab.url), options={}))
    orders, returns = (
        SubscriptionSettings(name=topic, topic=topic, group="billing")
        for topic in ("orders", "returns")
    )
    await transport.open()
    await transport.ensure(Topology(subscriptions=(orders, returns)), TopologyMode.CREATE)
    await transport.subscribe(orders, Listener())
    try:
        status, headers, _ = await lab.post('"x"', "/returns")
        assert (status, "Retry-After" in headers) == (503, True)
        assert (await lab.post('"x"', "/elsewhere"))[0] == 404
    finally:
        await transport.close()


async def test_a_signed_request_cannot_be_repeated_with_another_id(lab: Lab) -> None:
    runs = Runs()
    binary = {"ce_source": "/s", "ce_type": TYPE, "ce_specversion": "1.0"}
    envelope = json.dumps(event("enveloped", "e1"))
    structured = {"content-type": "application/cloudevents+json"}
    async with lab.receiving(runs.work, secrets=[SECRET]):
        for changes in ({}, {"message_uuid": "other"}, {"ce_id": "other", **binary}):
            assert (await lab.post('"x"', **signed('"x"'), **changes))[0] == 204
        for changes in ({}, {"message_uuid": "other"}, {"ce_id": "other"}):
            assert (await lab.post(envelope, **signed(envelope), **structured, **changes))[0] == 204
    assert [one.message.id for one in runs.contexts] == ["m1"] * 3 + ["e1"] * 3
