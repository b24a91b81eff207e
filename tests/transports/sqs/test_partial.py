"""Batches: packed by count and bytes, and each entry fails by itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pytest
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    AuthenticationError,
    PublishError,
    PublishRefusedError,
    TransportError,
)
from protoflow.message import Settlement, SettleResult
from protoflow.transport import Transport
from protoflow.transports.sqs.connection import failure

from tests.transports.nats.harness import (
    ack,
    join,
    message,
    nothing,
    opened,
    payloads,
    publish,
    take,
    topic,
)
from tests.transports.sqs.conftest import Call, Change, Requests


def failing(entries: str, answers: Mapping[str, dict[str, Any]]) -> Change:
    """A change that answers with failures for entries, once; AWS gets the others."""
    left = {**answers}

    async def change(send: Call, parameters: dict[str, Any]) -> Mapping[str, Any]:
        now = [each["Id"] for each in parameters[entries] if each["Id"] in left]
        failed = [{"Id": id, "Message": "no", **left.pop(id)} for id in now]
        rest = [each for each in parameters[entries] if each["Id"] not in now]
        found = await send(**{**parameters, entries: rest}) if rest else {}
        return {**found, "Failed": [*found.get("Failed", ()), *failed]}

    return change


async def test_batches_are_packed_by_count_and_by_bytes(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    await join(transport, name)
    large = b"x" * 100_000
    await publish(
        transport,
        *(message(name) for _ in range(23)),
        *(message(name, large) for _ in range(5)),
    )
    sizes = [len(each["PublishBatchRequestEntries"]) for each in requests.of("publish_batch")]
    assert sizes == [10, 10, 5, 2, 1]
    for each in requests.of("publish_batch"):
        assert sum(len(one["Message"]) for one in each["PublishBatchRequestEntries"]) <= 262_144


async def test_each_message_of_a_batch_fails_by_itself(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    requests.changes["publish_batch"] = failing(
        "PublishBatchRequestEntries",
        {
            "1": {"Code": "InvalidParameter", "SenderFault": True},
            "3": {"Code": "InternalError", "SenderFault": False},
            "4": {"Code": "Throttled", "SenderFault": True},
        },
    )
    results = await transport.submit([message(name, b"%d" % n) for n in range(6)])
    assert [type(each) for each in results] == [
        type(None), PublishRefusedError, type(None), PublishError, PublishError, type(None)
    ]  # fmt: skip
    assert sorted(payloads(await take(subscription, 3))) == [b"0", b"2", b"5"]


async def test_a_batch_that_is_refused_is_sent_one_by_one(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    await join(transport, name)

    async def refuse(send: Call, parameters: dict[str, Any]) -> Mapping[str, Any]:
        if any(each["Message"] == "bad" for each in parameters["PublishBatchRequestEntries"]):
            response = {
                "Error": {"Code": "InvalidParameter"},
                "ResponseMetadata": {"HTTPStatusCode": 400},
            }
            raise failure(response, "InvalidParameter")
        return await send(**parameters)

    requests.changes["publish_batch"] = refuse
    results = await transport.submit([message(name, text) for text in (b"1", b"bad", b"2")])
    assert [type(each) for each in results] == [type(None), PublishRefusedError, type(None)]


async def test_a_deletion_that_fails_is_unknown_and_is_repeated_alone(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    await publish(transport, *(message(name, b"%d" % n) for n in range(12)))
    batch = await take(subscription, 12)
    requests.changes["delete_message_batch"] = failing(
        "Entries",
        {
            "0": {"Code": "InternalError", "SenderFault": False},
            "1": {"Code": "ReceiptHandleIsInvalid", "SenderFault": True},
        },
    )
    settlements = [Settlement(delivery) for delivery in batch]
    results = [*await subscription.settle(settlements)]
    assert results.count(SettleResult.UNKNOWN) == 1
    assert results.count(SettleResult.LOST) == 1
    assert results.count(SettleResult.DONE) == 10
    sizes = [len(each["Entries"]) for each in requests.of("delete_message_batch")]
    assert sorted(sizes) == [2, 10]
    unknown = settlements[results.index(SettleResult.UNKNOWN)]
    assert [*await subscription.settle([unknown])] == [SettleResult.DONE]


async def test_a_lease_that_is_gone_is_lost_and_the_others_are_renewed(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, listener = await join(transport, name, lease=3.0)
    await publish(transport, *(message(name, b"%d" % n) for n in range(3)))
    batch = await take(subscription, 3)
    requests.changes["change_message_visibility_batch"] = failing(
        "Entries", {"1": {"Code": "MessageNotInflight", "SenderFault": True}}
    )
    while not listener.lost:
        await nothing(subscription, 0.2)
    (lost,) = listener.lost
    await ack(subscription, *(each for each in batch if each is not lost))
    assert [*await subscription.settle([Settlement(lost)])] == [SettleResult.LOST]
    for each in requests.of("change_message_visibility_batch"):
        assert {entry["VisibilityTimeout"] for entry in each["Entries"]} == {3}


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 400, TransportError),
        ("RequestThrottled", 403, TransportError),
        ("InternalFailure", 500, TransportError),
        ("ExpiredToken", 403, AuthenticationError),
        ("InvalidClientTokenId", 403, AuthenticationError),
        ("AccessDenied", 403, AuthenticationError),
    ],
)
async def test_errors_of_a_whole_request(
    transport: Transport, requests: Requests, code: str, status: int, kind: type[Exception]
) -> None:
    """Only a right that is missing is final: credentials are renewed, and throttling ends."""
    name = topic()
    subscription, _ = await join(transport, name)
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    async def fail(_send: Call, _parameters: dict[str, Any]) -> Mapping[str, Any]:
        raise failure(response, code)

    assert isinstance(failure(response, code), kind)
    requests.changes["publish_batch"] = fail
    (result,) = await transport.submit([message(name)])
    assert isinstance(result, PublishError)
    assert isinstance(result, PublishRefusedError) == (code == "AccessDenied")
    del requests.changes["publish_batch"]
    await publish(transport, message(name))
    (delivery,) = await take(subscription, 1)
    requests.changes["delete_message_batch"] = fail
    assert [*await subscription.settle([Settlement(delivery)])] == [SettleResult.UNKNOWN]
    del requests.changes["delete_message_batch"]
    await ack(subscription, delivery)


async def test_a_dead_letter_is_stored_once_although_its_groups_cannot_be_counted(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    await join(transport, name)
    dead = f"{name}..billing..dead"

    async def fail(_send: Call, _parameters: dict[str, Any]) -> Mapping[str, Any]:
        raise TransportError("throttled")

    requests.changes["list_subscriptions_by_topic"] = fail
    (result,) = await transport.submit([message(dead, id="1")])
    assert isinstance(result, PublishError)
    del requests.changes["list_subscriptions_by_topic"]
    await publish(transport, message(dead, id="1"))
    (record,) = await dead_letters_of(transport).list(dead)
    assert record.message.id == "1"


async def test_one_lease_that_is_not_renewed_does_not_end_the_others(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, listener = await join(transport, name, lease=3.0)
    await publish(transport, *(message(name, b"%d" % n) for n in range(3)))
    batch = await take(subscription, 3)
    bad = batch[1].receipt.handle

    async def change(send: Call, parameters: dict[str, Any]) -> Mapping[str, Any]:
        failed = [
            {"Id": each["Id"], "Code": "InternalError", "SenderFault": False, "Message": "no"}
            for each in parameters["Entries"]
            if each["ReceiptHandle"] == bad
        ]
        rest = [each for each in parameters["Entries"] if each["ReceiptHandle"] != bad]
        found = await send(**{**parameters, "Entries": rest}) if rest else {}
        return {**found, "Failed": failed}

    requests.changes["change_message_visibility_batch"] = change
    while not listener.lost:
        await asyncio.sleep(0.1)
    assert listener.lost == [batch[1]]
    await asyncio.sleep(1.5)
    assert listener.lost == [batch[1]]
    await ack(subscription, batch[0], batch[2])


async def test_leases_are_renewed_although_the_solo_queue_cannot_be_looked_at(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, listener = await join(transport, name, lease=3.0)
    await publish(transport, message(name))
    (held,) = await take(subscription, 1)

    async def change(send: Call, parameters: dict[str, Any]) -> Mapping[str, Any]:
        raise TransportError("throttled")

    requests.changes["get_queue_attributes"] = change
    subscription._checked = -math.inf  # type: ignore[attr-defined]
    await asyncio.sleep(5)
    assert requests.of("get_queue_attributes")
    assert listener.lost == []
    await ack(subscription, held)


async def test_readiness_returns_without_another_publish(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that gets no requests while it is not ready publishes nothing."""
    monkeypatch.setattr("protoflow.transports.sqs.transport._CHECK", 0.05)
    transport: Any
    async with opened(url, wait_time=1) as transport:
        transport._connection.problem = "publish_batch was not answered within 10 s"
        assert transport.health() is not None
        async with asyncio.timeout(5):
            while transport.health() is not None:
                await asyncio.sleep(0.01)
