"""Delays, dead letters, policies, order and broadcasts as SQS has them."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    AuthenticationError,
    CapabilityError,
    ConfigError,
    ConnectionFailedError,
    PublishRefusedError,
    ReplayError,
    TopologyError,
    TransportError,
)
from protoflow.message import Message, Settlement, SettleResult
from protoflow.transport import PrintsPolicy, Topology, TopologyMode, Transport

from tests.faults.proxy import FaultProxy
from tests.transports.nats.harness import (
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
from tests.transports.sqs.conftest import Call, Requests


async def throttle(_send: Call, _parameters: dict[str, Any]) -> dict[str, Any]:
    """A change that lets requests fail."""
    raise TransportError("throttled")


async def raw(transport: Any, service: str, operation: str, **parameters: Any) -> Any:
    return await transport._connection.call(service, operation, **parameters)


async def queue_url(transport: Any, name: str, group: str = "billing") -> str:
    resources = transport._resources
    found: str = await resources.url(resources.names.group(name, group))
    return found


async def test_a_long_wait_begins_again_after_a_quarter_of_an_hour(
    transport: Transport, requests: Requests
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    deferred = subscription.defer(message(name), 3600.0)
    assert deferred is not None
    assert deferred.delay == 900
    await publish(transport, deferred)
    ((entry,),) = [each["Entries"] for each in requests.of("send_message_batch")]
    assert entry["DelaySeconds"] == 900
    metadata = {wire.PF_GROUP: "billing", wire.PF_DUE: "9999999999.0", wire.PF_ATTEMPT: "2"}
    early = subscription.defer(message(name, metadata=metadata), 0.2)
    assert early is not None
    await publish(transport, early)
    (delivery,) = await take(subscription, 1)
    assert delivery.own_place, "so the scheduler defers it again until it is due"
    assert delivery.message.topic == name
    assert delivery.message.metadata[wire.PF_DUE] == "9999999999.0"
    await ack(subscription, delivery)


async def test_a_delay_to_a_topic_is_refused(transport: Transport) -> None:
    (result,) = await transport.submit([message(topic(), delay=1.0)])
    assert isinstance(result, PublishRefusedError)


async def test_a_stranger_reads_and_writes_the_queue(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    url = await queue_url(transport, name)
    await raw(transport, "sqs", "send_message", QueueUrl=url, MessageBody='{"a": 1}')
    (delivery,) = await take(subscription, 1)
    assert delivery.message.payload == b'{"a": 1}'
    assert delivery.message.id == delivery.position, "SQS's own id, the same at each delivery"
    assert not delivery.own_place
    await ack(subscription, delivery)
    await subscription.stop()
    await publish(transport, message(name, b'{"b": 2}', metadata={"color": "red"}))
    answer = await raw(
        transport, "sqs", "receive_message", QueueUrl=url, MessageAttributeNames=["All"],
        WaitTimeSeconds=1,
    )  # fmt: skip
    (got,) = answer["Messages"]
    assert got["Body"] == '{"b": 2}', "raw delivery"
    assert got["MessageAttributes"]["color"]["StringValue"] == "red"


async def test_keys_are_groups_of_fair_queues_if_asked_for(url: str) -> None:
    async with opened(url, wait_time=1, fair=True) as transport:
        requests, name = Requests(transport), topic()
        subscription, _ = await join(transport, name)
        await publish(transport, message(name, key=b"tenant 1"), message(name, key=b"t2"))
        ((first, second),) = [
            each["PublishBatchRequestEntries"] for each in requests.of("publish_batch")
        ]
        assert len(first["MessageGroupId"]) == 64, "a blank is not allowed: hashed"
        assert second["MessageGroupId"] == "t2"
        assert "MessageDeduplicationId" not in first
        await ack(subscription, *await take(subscription, 2))


async def test_fifo_topics_keep_the_order_of_keys_and_drop_repeated_ids(
    ordered: Transport,
) -> None:
    name = topic()
    subscription, _ = await join(ordered, name, ordering=Ordering.PER_KEY)
    await publish(ordered, *(message(name, b"%d" % n, key=b"k", id=f"i{n}") for n in range(4)))
    await publish(ordered, message(name, b"again", key=b"k", id="i0"))
    first, *rest = await take(subscription, 4)
    assert payloads([first, *rest]) == [b"0", b"1", b"2", b"3"]
    await ack(subscription, first, *rest)
    await nothing(subscription)
    await publish(ordered, message(name, b"4", key=b"k"))
    (held,) = await take(subscription, 1)
    await publish(ordered, message(name, b"5", key=b"k"), message(name, b"free"))
    (free,) = await take(subscription, 1)
    assert free.message.payload == b"free", "a key in flight holds back its later messages only"
    await ack(subscription, held, free)
    (last,) = await take(subscription, 1)
    assert last.message.payload == b"5"
    await ack(subscription, last)


async def test_a_replay_of_an_ordered_group_goes_through_its_queue(ordered: Transport) -> None:
    name = topic()
    subscription, _ = await join(ordered, name, ordering=Ordering.PER_KEY)
    dead = f"{name}..billing..dead"
    origin = {wire.PF_ORIGINAL_TOPIC: name, wire.PF_GROUP: "billing"}
    await publish(ordered, message(dead, b"d", key=b"k", metadata=origin, id="dead"))
    dead_letters = dead_letters_of(ordered)
    with pytest.raises(ReplayError, match="FIFO queue cannot ask"):
        await dead_letters.replay(dead, reprocess=True)
    assert await dead_letters.replay(dead) == 1
    (delivery,) = await take(subscription, 1)
    assert (delivery.message.id, delivery.message.key) == ("dead", b"k")
    assert not delivery.own_place, "topic and replays share the queue"
    await ack(subscription, delivery)


async def test_dead_letters_that_another_look_holds_are_reported(
    transport: Transport, url: str
) -> None:
    name = topic()
    await join(transport, name)
    dead = f"{name}..billing..dead"
    await publish(transport, message(dead, b"1"), message(dead, b"2"))
    async with opened(url, wait_time=1) as other, other.dead_letters.scan(dead) as scan:  # type: ignore[attr-defined]
        assert len(await scan.take(10)) == 2
        assert await dead_letters_of(transport).count(dead) == 2
        with pytest.raises(
            TransportError, match=r"the 2 dead letters of .* are held by another process"
        ):
            await dead_letters_of(transport).list(dead)
    assert len(await dead_letters_of(transport).list(dead)) == 2


async def test_a_dead_letter_is_larger_than_what_a_topic_takes(transport: Transport) -> None:
    name = topic()
    await join(transport, name)
    dead = f"{name}..billing..dead"
    await publish(transport, message(dead, b"x" * 900_000))
    ((only,),) = [await dead_letters_of(transport).list(dead)]
    assert len(only.message.payload or b"") == 900_000


async def test_a_queue_that_refuses_its_topic_stops_the_start(transport: Any) -> None:
    name = topic()
    queue = transport._resources.names.group(name, "billing")
    await raw(transport, "sqs", "create_queue", QueueName=queue)
    with pytest.raises(TopologyError, match="does not let its topic send to it") as caught:
        await join(transport, name)
    policy = json.loads(str(caught.value).partition("set its policy to ")[2].rpartition(" [")[0])
    (statement,) = policy["Statement"]
    assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(
        transport._resources.names.topic(name)
    )
    await raw(
        transport, "sqs", "set_queue_attributes",
        QueueUrl=await queue_url(transport, name), Attributes={"Policy": json.dumps(policy)},
    )  # fmt: skip
    subscription, _ = await join(transport, name)
    await publish(transport, message(name))
    await ack(subscription, *await take(subscription, 1))


async def test_verify_names_the_subscription_that_is_missing(transport: Any) -> None:
    name = topic()
    await join(transport, name)
    topology = Topology(subscriptions=(settings_of(name),), topics=(name,))
    await transport.ensure(topology, TopologyMode.VERIFY)
    arn = transport._resources.topic_arn(name)
    found = await raw(transport, "sns", "list_subscriptions_by_topic", TopicArn=arn)
    (only,) = found["Subscriptions"]
    await raw(transport, "sns", "unsubscribe", SubscriptionArn=only["SubscriptionArn"])
    with pytest.raises(TopologyError, match=r"the subscription of queue .* is missing"):
        await transport.ensure(topology, TopologyMode.VERIFY)


async def test_the_policy_of_a_service_names_its_own_places_only(transport: Transport) -> None:
    assert isinstance(transport, PrintsPolicy)
    consumed, published = topic(), topic("out")
    topology = Topology(subscriptions=(settings_of(consumed),), topics=(published,))
    policy = transport.policy(topology)
    rights = {each["Action"][0]: each["Resource"] for each in policy["Statement"]}
    short = {
        action: sorted(arn.partition("protoflow")[2] for arn in arns)
        for action, arns in rights.items()
    }
    place, out = consumed.replace(".", "-"), published.replace(".", "-")
    assert short == {
        "sns:Publish": [f"--{place}--billing--dead", f"--{out}"],
        "sqs:ReceiveMessage": [
            f"--{place}----billing", f"--{place}----billing----retry",
            f"--{place}----billing----solo",
        ],
        "sqs:SendMessage": [
            f"--{place}----billing----retry", f"--{place}----billing----solo",
            f"--{place}--billing--dead",
        ],
    }  # fmt: skip


async def test_a_broadcast_removes_its_queue_at_the_end(url: str, transport: Any) -> None:
    name = topic()
    async with opened(url, wait_time=1) as other:
        await join(other, name, broadcast=True)
        assert await transport._resources.subscribers(name) == 1
    arn = transport._resources.topic_arn(name)
    found = await raw(transport, "sns", "list_subscriptions_by_topic", TopicArn=arn)
    assert not found.get("Subscriptions")


async def test_a_broadcast_removes_its_queue_although_it_cannot_be_unsubscribed(
    url: str, transport: Any
) -> None:
    async with opened(url, wait_time=1) as other:
        await join(other, topic(), broadcast=True)
        (queue,) = other._processes  # type: ignore[attr-defined]
        Requests(other).changes["unsubscribe"] = throttle
    with pytest.raises(TopologyError):
        await transport._resources.url(queue)


async def test_the_numbers_of_subscribers_that_are_remembered_are_bounded(
    transport: Any, requests: Requests
) -> None:
    async def answer(_send: Call, _parameters: dict[str, Any]) -> dict[str, Any]:
        return {}

    requests.changes["list_subscriptions_by_topic"] = answer
    for number in range(1100):
        assert await transport._resources.subscribers(f"t{number}") == 0
    assert len(transport._resources._subscribed) <= 1000


async def test_nobody_consumes_a_topic(url: str) -> None:
    transport = make(url, wait_time=1)
    settings: Any = transport
    object.__setattr__(settings._connection.settings, "require_subscriber", True)
    await transport.open()
    try:
        (result,) = await transport.submit([message(topic())])
        assert isinstance(result, PublishRefusedError)
        assert "no group consumes" in str(result)
    finally:
        await transport.close()


async def test_connections_that_are_cut_lose_nothing(url: str) -> None:
    name = topic()
    async with (
        FaultProxy.to(url) as proxy,
        opened(proxy.url, wait_time=1, request_timeout=3.0) as transport,
    ):
        subscription, _ = await join(transport, name, lease=3.0)
        sent = [message(name, b"%d" % n) for n in range(30)]
        seen: set[bytes] = set()

        async def work() -> None:
            while len(seen) < len(sent):
                for delivery in await subscription.receive(10, 1 << 20):
                    await ack_anyhow(subscription, delivery)
                    seen.add(delivery.message.payload or b"")

        working = asyncio.create_task(work())
        for number, each in enumerate(sent):
            if number % 10 == 5:
                proxy.cut()
                await asyncio.sleep(0.3)
                proxy.restore()
            while (await transport.submit([each]))[0] is not None:
                await asyncio.sleep(0.1)
        await asyncio.wait_for(working, 40)


async def ack_anyhow(subscription: Any, delivery: Any) -> None:
    result = SettleResult.UNKNOWN
    while result is SettleResult.UNKNOWN:
        (result,) = await subscription.settle([Settlement(delivery)])
        await asyncio.sleep(0.02)


async def test_a_role_is_assumed(url: str) -> None:
    role = "arn:aws:iam::123456789012:role/worker"
    async with opened(url, wait_time=1, role=role) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        await publish(transport, message(name))
        await ack(subscription, *await take(subscription, 1))


async def test_a_web_identity_is_taken_from_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """As on Kubernetes: botocore's own chain."""
    (tmp_path / "token").write_text("e30.e30.e30")
    bare = url.replace("test:test@", "")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/worker")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", bare.replace("sqs://", "http://"))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with opened(bare, wait_time=1) as transport:
        await publish(transport, message(topic()))


async def test_without_credentials_or_a_server_the_start_says_so(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bare = url.replace("test:test@", "")
    with pytest.raises(AuthenticationError, match="credentials"):
        await make(bare).open()
    with pytest.raises(ConfigError, match="region; name the region in the URL"):
        await make("sqs://").open()
    with pytest.raises(
        ConfigError, match=r"\(nobody\) could not be found; correct .* profile \[PF203\]$"
    ):
        await make(bare, profile="nobody").open()
    with pytest.raises(ConnectionFailedError):
        await make("sqs://a:b@127.0.0.1:1").open()
    with pytest.raises(ConfigError, match="one region or one host"):
        make("sqs://a,b")
    with pytest.raises(ConfigError, match="access key and its secret"):
        make("sqs://key@eu-central-1")


async def test_a_hold_beyond_that_of_sqs_is_refused(transport: Transport) -> None:
    settings = settings_of(topic(), max_hold=12 * 3600.0)
    with pytest.raises(CapabilityError, match="39600 s at most"):
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)


async def test_queues_that_were_removed_are_made_again(transport: Any, requests: Requests) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    await raw(transport, "sqs", "delete_queue", QueueUrl=await queue_url(transport, name))
    async with asyncio.timeout(30):
        while True:
            await publish(transport, Message(id="i", topic=name, payload=b"x"))
            try:
                found = await asyncio.wait_for(subscription.receive(1, 1 << 20), 1)
            except TimeoutError:
                continue
            if found:
                break
    await ack(subscription, *found)


async def test_dead_letters_whose_queue_was_removed_are_stored_in_a_new_one(
    transport: Any,
) -> None:
    name = topic()
    await join(transport, name)
    dead = f"{name}..billing..dead"
    queue = transport._resources.names.dead_letters(dead)
    url = await transport._resources.url(queue)
    await raw(transport, "sqs", "delete_queue", QueueUrl=url)
    await publish(transport, message(dead, b"d", id="1"))
    (record,) = await dead_letters_of(transport).list(dead)
    assert record.message.id == "1"


async def test_an_id_that_is_not_utf8_is_stored_with_its_neighbours(ordered: Transport) -> None:
    """A stranger sent it as JSON: the dead letter must be stored."""
    name = topic()
    await join(ordered, name, ordering=Ordering.PER_KEY)
    dead = f"{name}..billing..dead"
    await publish(
        ordered, message(dead, id="\ud800"), message(dead, id="2", deduplication_id="\ud800")
    )
    assert len(await dead_letters_of(ordered).list(dead)) == 2


async def test_a_poll_that_begins_while_the_subscription_stops_is_waited_for(
    transport: Any, requests: Requests
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    await publish(transport, message(name))
    receiving = asyncio.ensure_future(subscription.receive(10, 1 << 20))
    await asyncio.sleep(0)  # its request is made, but not begun
    await subscription.stop()
    assert [*await receiving] == []
    assert all(poll.done() for poll in subscription._polls.values())  # type: ignore[attr-defined]


async def test_a_poll_that_fails_while_the_subscription_stops_is_no_error(
    transport: Any, requests: Requests
) -> None:
    name, problems = topic(), list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: problems.append(context))

    async def fail_later(send: Call, parameters: dict[str, Any]) -> Any:
        if not parameters["QueueUrl"].endswith("retry"):
            return await send(**parameters)
        await asyncio.sleep(1)
        return await throttle(send, parameters)

    requests.changes["receive_message"] = fail_later
    subscription, _ = await join(transport, name)
    await publish(transport, message(name))
    await ack(subscription, *await subscription.receive(1, 1 << 20))
    await subscription.stop()
    subscription._polls.clear()  # type: ignore[attr-defined]
    gc.collect()
    assert problems == []
