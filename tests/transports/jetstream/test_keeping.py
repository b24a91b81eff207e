"""What JetStream keeps: streams, durables, dead letters; through changes, limits, strangers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import PublishRefusedError, ReplayError, TopologyError, TransportError
from protoflow.message import Message
from protoflow.transport import Topology, TopologyMode, Transport
from protoflow.transports.nats.names import JetStreamNames

from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable
from tests.brokers.nats import NatsBroker
from tests.transports.nats.harness import (
    ack,
    join,
    message,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)

# A deploy that changes something


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Ordering.NONE, Ordering.PER_KEY),
        (Ordering.PER_KEY, Ordering.NONE),
        (Ordering.PER_KEY, Ordering.PER_PARTITION),
    ],
)
async def test_another_ordering_takes_over_what_waits(
    url: str, before: Ordering, after: Ordering
) -> None:
    name = topic()
    group = f"g.{name}"
    async with opened(url) as transport:
        subscription, _ = await join(transport, name, group, ordering=before)
        await publish(transport, *[message(name, b"%d" % n, key=b"k") for n in range(4)])
        await ack(subscription, *await take(subscription, 1))
        deferred = subscription.defer(message(name, b"later", key=b"k"), 1.0)
        if deferred is not None:
            await publish(transport, deferred)
        await subscription.stop()
    async with opened(url) as transport:
        subscription, _ = await join(transport, name, group, ordering=after)
        expected = [b"1", b"2", b"3"] + [b"later"] * (deferred is not None)
        found: list[bytes] = []
        while len(found) < len(expected):
            taken = await take(subscription, 1)
            found += payloads(taken)
            await ack(subscription, *taken)
        assert sorted(found) == sorted(expected)
        if after is not Ordering.NONE:
            assert [text for text in found if text != b"later"] == [b"1", b"2", b"3"]


async def test_another_ordering_is_refused_while_the_old_one_is_at_work(url: str) -> None:
    name = topic()
    group = f"g.{name}"
    async with opened(url) as old, opened(url) as new:
        subscription, _ = await join(old, name, group)
        await publish(old, message(name, key=b"k"))
        taken = await take(subscription, 1)
        settings = replace(settings_of(name, group), ordering=Ordering.PER_KEY)
        with pytest.raises(TopologyError) as caught:
            await new.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        text = str(caught.value)
        assert "becomes per_key, and requests of running processes wait there: 1" in text
        assert "stop every process of the group" in text
        await ack(subscription, *taken)
        await subscription.stop()
    async with opened(url) as new:
        await new.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)


async def test_a_new_lease_or_window_is_adopted_in_place(url: str) -> None:
    name = topic()
    group = f"g.{name}"
    async with opened(url) as transport:
        await join(transport, name, group, ordering=Ordering.PER_KEY, lease=20.0)
    async with opened(url, ordered_window=10) as transport:
        await join(transport, name, group, ordering=Ordering.PER_KEY, lease=10.0)
        api = transport._api  # type: ignore[attr-defined]
        names = JetStreamNames("protoflow")
        found = await api.consumer(names.stream(name), names.group_token(group))
        assert found["config"]["ack_wait"] == 10_000_000_000
        assert found["config"]["max_ack_pending"] == 10
        assert found["config"]["priority_timeout"] == 10_000_000_000


@pytest.mark.parametrize(("option", "value"), [("max_age", "1d"), ("max_bytes", 100_000)])
async def test_another_limit_of_a_topic_is_reported(url: str, option: str, value: object) -> None:
    settings = settings_of(topic())
    topology = Topology(subscriptions=(settings,), topics=(settings.topic,))
    async with opened(url) as transport:
        await transport.ensure(topology, TopologyMode.CREATE)
    options: dict[str, Any] = {option: value}
    async with opened(url, **options) as transport:
        for mode in (TopologyMode.CREATE, TopologyMode.VERIFY):
            with pytest.raises(TopologyError, match=option) as caught:
                await transport.ensure(topology, mode)
            assert "dead" not in str(caught.value), "dead letters are kept whatever is set"


async def test_another_number_of_shards_is_refused_with_the_way_to_go(url: str) -> None:
    settings = settings_of(topic())
    topology = Topology(subscriptions=(settings,))
    async with opened(url) as transport:
        await transport.ensure(topology, TopologyMode.CREATE)
    async with opened(url, shards=2) as transport:
        with pytest.raises(TopologyError, match="let all groups handle its messages"):
            await transport.ensure(topology, TopologyMode.CREATE)


# Limits


async def test_a_delay_that_the_stream_cannot_keep_is_refused(url: str) -> None:
    name = topic()
    async with opened(url, max_age=2.0, duplicate_window=1.0) as transport:
        await join(transport, name, f"g.{name}")
        short, long = await transport.submit([message(name, delay=1.0), message(name, delay=2.0)])
        assert short is None
        assert isinstance(long, PublishRefusedError)
        assert "not shorter than the 2 s for which its stream keeps messages" in str(long)
    async with opened(url, max_bytes=100_000) as transport:
        name = topic()
        await join(transport, name)
        plain, delayed = await transport.submit([message(name), message(name, delay=1.0)])
        assert plain is None
        assert isinstance(delayed, PublishRefusedError)
        assert "drops the oldest messages" in str(delayed)


async def _away(url: str, lost: str) -> tuple[Transport, Any, Any, str]:
    name = topic()
    options = {"max_age": 1.0, "duplicate_window": 0.5}
    async with opened(url, **options) as transport:
        subscription, _ = await join(transport, name, f"g.{name}")
        await publish(transport, message(name, b"read"))
        await ack(subscription, *await take(subscription, 1))
        await subscription.stop()
        await publish(transport, *[message(name, b"unread") for _ in range(5)])
        await asyncio.sleep(2.5)
    from protoflow import transports
    from protoflow.config.url import TransportURL
    from protoflow.transport import TransportSettings

    made = transports.create(
        TransportSettings(url=TransportURL.parse(url), options=options, on_lost_position=lost)
    )
    await made.open()
    subscription, listener = await join(made, name, f"g.{name}")
    return made, subscription, listener, name


async def test_messages_that_left_the_stream_unread_stop_the_subscription(url: str) -> None:
    transport, subscription, listener, _ = await _away(url, "stop")
    try:
        with pytest.raises(TransportError, match=r"5 messages of stream .* were removed"):
            await asyncio.wait_for(subscription.receive(1, 1), 5)
        assert listener.health[-1][0] is False
    finally:
        await transport.close()


@pytest.mark.parametrize("lost", ["earliest", "latest"])
async def test_a_lost_position_goes_on_where_it_is_reported_to(
    url: str, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport, subscription, _, name = await _away(url, lost)
    try:
        async with asyncio.timeout(5):
            while "position lost" not in caplog.text:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        await publish(transport, message(name, b"new"))
        assert payloads(await take(subscription, 1)) == [b"new"]
    finally:
        await transport.close()


async def test_a_read_group_or_a_delayed_message_is_no_lost_position(url: str) -> None:
    options = {"max_age": 1.5, "duplicate_window": 0.5}
    name = topic()
    async with opened(url, **options) as transport:
        subscription, _ = await join(transport, name, f"g.{name}")
        await publish(transport, message(name, b"read"), message(name, b"later", delay=1.0))
        await ack(subscription, *await take(subscription, 1))
        await subscription.stop()
        await asyncio.sleep(2.0)
    async with opened(url, **options) as transport:
        subscription, listener = await join(transport, name, f"g.{name}")
        assert payloads(await take(subscription, 1)) == [b"later"]
        assert listener.health == []


# Dead letters


def _dead_letter(dead: str, origin: str, **fields: Any) -> Message:
    metadata = {
        "ce_type": "t.v1.T",
        wire.PF_DEAD_LETTER: "true",
        wire.PF_GROUP: "billing",
        wire.PF_ORIGINAL_TOPIC: origin,
        **fields.pop("metadata", {}),
    }
    return message(dead, metadata={k: v for k, v in metadata.items() if v}, **fields)


async def test_what_cannot_be_replayed_is_named_and_left(
    transport: Transport,
) -> None:
    name, strangers = topic(), topic("strangers")
    dead = f"{name}..billing..dead"
    subscription, _ = await join(transport, name)
    await transport.ensure(Topology(topics=(strangers,)), TopologyMode.CREATE)
    await publish(
        transport,
        _dead_letter(dead, name, payload=b"good 1"),
        _dead_letter(dead, "", id="no-origin"),
        _dead_letter(dead, name, id="no-group", metadata={wire.PF_GROUP: ""}),
        _dead_letter(dead, strangers, id="forged"),
        _dead_letter(dead, name, id="other-group", metadata={wire.PF_GROUP: "audit"}),
        _dead_letter(dead, name, payload=b"good 2"),
    )
    with pytest.raises(ReplayError) as caught:
        await dead_letters_of(transport).replay(dead)
    text = str(caught.value)
    assert "2 replayed, 4 left" in text
    assert all(id in text for id in ("no-origin", "no-group", "forged", "other-group"))
    assert payloads(await take(subscription, 2)) == [b"good 1", b"good 2"]
    assert await dead_letters_of(transport).count(dead) == 4
    with pytest.raises(ReplayError, match="0 replayed, 1 left"):
        await dead_letters_of(transport).replay(dead, ["forged"], to_origin=True)
    assert await dead_letters_of(transport).purge(dead, ["forged"]) == 1


async def test_a_dead_letter_without_payload_gets_it_from_the_stream(transport: Transport) -> None:
    """As it is where the message was so large that no dead letter can hold it."""
    name = topic()
    dead = f"{name}..billing..dead"
    subscription, _ = await join(transport, name)
    limit = transport.capabilities.max_message_bytes or 0
    large = message(name, bytes(limit - 200), id="large", key=b"k", metadata={"ce_type": "t.v1.T"})
    await publish(transport, large)
    (delivery,) = await take(subscription, 1)
    origin = {
        "ce_type": "",
        wire.PF_ORIGINAL_SHARD: "0",
        wire.PF_ORIGINAL_POSITION: str(delivery.position),
        wire.PF_ERROR_CLASS: "other",
    }
    stub = _dead_letter(dead, name, id="large", metadata=origin)
    await publish(transport, replace(stub, payload=None))
    gone = {**origin, wire.PF_ORIGINAL_POSITION: "99"}
    await publish(
        transport, replace(_dead_letter(dead, name, id="gone", metadata=gone), payload=None)
    )
    await ack(subscription, delivery)
    shown = (await dead_letters_of(transport).show(dead, "large")).message
    assert (shown.payload, shown.key) == (large.payload, b"k")
    assert shown.metadata["ce_type"] == "t.v1.T"
    assert shown.metadata[wire.PF_ERROR_CLASS] == "other"
    with pytest.raises(ReplayError, match="1 replayed, 1 left: gone"):
        await dead_letters_of(transport).replay(dead)
    (again,) = await take(subscription, 1)
    assert (again.message.id, again.message.payload) == ("large", large.payload)


async def test_a_tombstone_that_was_dead_lettered_stays_one(transport: Transport) -> None:
    name = topic()
    dead = f"{name}..billing..dead"
    subscription, _ = await join(transport, name)
    gone = {wire.PF_ORIGINAL_POSITION: "77"}
    dead_letter = _dead_letter(dead, name, id="tombstone", metadata=gone)
    await publish(transport, replace(dead_letter, payload=None))
    assert (await dead_letters_of(transport).show(dead, "tombstone")).message.payload is None
    assert await dead_letters_of(transport).replay(dead) == 1
    assert (await take(subscription, 1))[0].message.payload is None


# Rights: docs/security.md has these lines

_CONFIG = """
authorization { users: [
  { user: shop, password: pw }
  { user: other, password: pw, permissions: {
      publish: {
        allow: ["protoflow.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.*"],
        deny: ["protoflow.=retry.>", "protoflow.=wait.>", "$JS.ACK.>"]
      }
      subscribe: ["_INBOX.>"]
  } }
] }
"""


async def test_a_user_without_rights_writes_no_hop_state(tmp_path: Path) -> None:
    text = (
        Path("docs/security-nats.part.md").read_text()
        if Path("docs/security-nats.part.md").exists()
        else Path("docs/security.md").read_text()
    )
    denied = ["protoflow.=retry.>", "protoflow.=wait.>", "$JS.ACK.>"]
    assert all(f'"{subject}"' in text for subject in denied), "the page has the lines tested here"
    config = tmp_path / "nats.conf"
    config.write_text(_CONFIG)
    server = NatsBroker(arguments=("-c", str(config)), credentials="shop:pw")
    try:
        with start_own(server) as broker:
            await _forge(broker.url)
    except BrokerUnavailable as error:
        skip_or_fail("nats", error)


async def _forge(url: str) -> None:
    async with opened(url.replace("nats://", "jetstream://")) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        await publish(transport, message(name, b"true"))
        (held,) = await take(subscription, 1)
        refused: list[str] = []

        async def denied(error: Exception) -> None:
            refused.append(str(error))

        stranger = await nats.connect(
            url.replace("shop:pw", "other:pw"), error_cb=denied, allow_reconnect=False
        )
        names = JetStreamNames("protoflow")
        retry = names.subject(names.retry_topic(name, "billing"))
        forged = {"pf_attempt": "9", "pf_group": "billing", "pf_due": "9e15"}
        schedule = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": retry}
        mark = names.mark(name, "billing", held.position)
        replay = names.subject(names.replay_topic(name, "billing"))
        await stranger.publish(retry, b"forged", headers=forged)
        await stranger.publish(replay, b"forged", headers=forged)
        await stranger.publish(mark, b"1 9 0")
        await stranger.publish(names.schedule(name), b"forged", headers=schedule)
        await stranger.publish(held.receipt.decode(), b"+TERM")
        purge = f"$JS.API.STREAM.PURGE.{names.group_stream('billing')}"
        await stranger.publish(purge, json.dumps({}).encode())
        await stranger.publish(f"protoflow.{name}", b"allowed", headers=forged)
        await stranger.flush()
        await asyncio.sleep(0.3)
        assert len(refused) == 6
        (allowed,) = await take(subscription, 1)
        assert allowed.message.payload == b"allowed"
        assert not allowed.own_place
        assert await subscription.isolate(held) == (held, 0)  # type: ignore[attr-defined]
        await ack(subscription, held, allowed)
        await stranger.close()
