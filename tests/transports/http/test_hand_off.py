"""HTTP in front of a store: 202 when a message is stored, and all that the store can do."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import protoflow.transport
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import transports
from protoflow.cli.tail import _broadcast
from protoflow.config.url import TransportURL
from protoflow.connection import Connection
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import ConfigError, PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.testing.transports.tasks import POLICY
from protoflow.transport import (
    Capabilities,
    LagReader,
    MessageFinder,
    ReportsWarnings,
    TopicReader,
    TransportSettings,
)
from protoflow.transports.http import hand_off
from protoflow.transports.http.codec import BATCH
from protoflow.web.neighbours import Neighbours

from tests.transports.http.conftest import TYPE, Lab, Runs, Subscriber, until

DEAD = "orders..billing..dead"


def store(tmp_path: Path) -> dict[str, Any]:
    return {"hand_off": f"sqlite:///{tmp_path}/inbox.db"}


async def test_a_request_is_answered_when_its_message_is_stored(lab: Lab, tmp_path: Path) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, **store(tmp_path)):
        assert (await lab.post('"slow"', webhook_id="w1"))[0] == 202
        await runs.started.wait()
    assert runs.done == []
    runs.release.set()
    async with lab.receiving(runs.work, **store(tmp_path)):
        await until(lambda: runs.done)
    assert runs.contexts[-1].message.id == "w1"


async def test_failures_are_dead_letters_of_the_store(lab: Lab, tmp_path: Path) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, **store(tmp_path)) as service:
        events = [
            {"id": id, "source": "/s", "type": TYPE, "specversion": "1.0", "data": value}
            for id, value in (("1", "good"), ("2", "bad"))
        ]
        assert (await lab.post(json.dumps(events), content_type=BATCH))[0] == 202
        dead_letters = dead_letters_of(service.transport)
        async with asyncio.timeout(10):
            while await dead_letters.count(DEAD) < 1:
                await asyncio.sleep(0.02)
        (record,) = await dead_letters.list(DEAD)
        assert record.message.id == "2"
        assert runs.seen.count("bad") == 3
        await dead_letters.purge(DEAD, ["2"])
    assert runs.done == ["good"]


async def test_it_has_what_the_store_has(lab: Lab, tmp_path: Path) -> None:
    def made(**options: Any) -> Any:
        url = TransportURL.parse(lab.url)
        return transports.create(TransportSettings(url=url, options=options))

    transport = made(**store(tmp_path))
    claims = transport.capabilities
    assert (claims.durable, claims.per_key, claims.dead_letters) == (True, True, True)
    assert not claims.atomic, "outputs may have targets"
    for optional in (LagReader, TopicReader, MessageFinder):
        assert isinstance(transport, optional)
        assert not isinstance(made(), optional)


def test_it_has_every_optional_interface_of_its_store(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new interface is passed on, or is named here with the reason why it is not."""
    optional = {
        name: vars(interface)
        for name, interface in vars(protoflow.transport).items()
        if getattr(interface, "_is_runtime_protocol", False)
    }
    of_subscriptions = {"Isolation", "Availability", "EndsIntake"}
    not_atomic = {"Transactional", "SqlLog"}  # outputs may have targets
    wanted = optional.keys() - of_subscriptions - not_atomic
    members = {
        member
        for name in wanted
        for member in {*optional[name], *optional[name].get("__annotations__", ())}
        if not member.startswith("_")
    }
    full = type("Full", (), dict.fromkeys(members, lambda *_: {"disk": "is nearly full"}))()
    full.capabilities = Capabilities(durable=True)
    monkeypatch.setattr(hand_off, "create", lambda _: full)
    url = TransportURL.parse(lab.url)
    transport = transports.create(
        TransportSettings(url=url, options={"hand_off": "sqlite:///inbox.db"})
    )
    assert {member for member in members if not hasattr(transport, member)} == set()
    assert isinstance(transport, ReportsWarnings)
    assert transport.warnings() == {"disk": "is nearly full"}


async def test_what_cannot_be_stored_now_comes_later(lab: Lab, tmp_path: Path) -> None:
    runs = Runs()
    async with lab.receiving(runs.work, answer_timeout=0.3, **store(tmp_path)):
        locked = sqlite3.connect(tmp_path / "inbox.db", isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        status, headers, _ = await lab.post('"1"')
        assert (status, headers["Retry-After"]) == (503, "5")
        locked.execute("ROLLBACK")
        locked.close()
        assert (await lab.post('"2"'))[0] == 202
        await until(lambda: "2" in runs.done)


async def test_outputs_with_a_target_are_sent_and_others_are_stored(
    lab: Lab, subscriber: Subscriber, tmp_path: Path
) -> None:
    async def work(order: StringValue, context: Any) -> StringValue:
        await context.publish(Message(id=f"n{order.value}", topic="notes", payload=b"x"))
        return order

    targets = [{"topic": "results", "url": subscriber.url}]
    options = {"targets": targets, **store(tmp_path)}
    async with lab.receiving(work, results="results", policy=POLICY, **options) as service:
        assert (await lab.post('"1"'))[0] == 202
        await until(lambda: subscriber.requests)
        notes = [
            record.message.id
            async for record in service.transport.read_topic("notes", start=0.0, follow=False)  # type: ignore[attr-defined]
        ]
    assert [body for _, body in subscriber.requests] == [b"\n\x011"]
    assert notes == ["n1"]


async def test_the_order_of_the_store_is_fixed_when_submit_returns(
    lab: Lab, subscriber: Subscriber, tmp_path: Path
) -> None:
    targets = [{"topic": "results", "url": subscriber.url}]
    async with lab.receiving(Runs().work, targets=targets, **store(tmp_path)) as service:
        first, sent, second = (
            Message(id=id, topic=topic, payload=b"x")
            for id, topic in (("1", "notes"), ("2", "results"), ("3", "notes"))
        )
        both = service.transport.submit([sent, first])
        alone = service.transport.submit([second])
        assert [*await both, *await alone] == [None] * 3
        reader: Any = service.transport
        notes = [
            one.message.id async for one in reader.read_topic("notes", start=0.0, follow=False)
        ]
    assert notes == ["1", "3"]


async def test_if_one_part_cannot_be_opened_the_other_stays_closed(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "disabled.json").write_text("no JSON")
    gone = {"hand_off": f"sqlite:///{tmp_path}/none/inbox.db"}
    unreadable = {"disabled_file": f"{tmp_path}/disabled.json", **store(tmp_path)}
    for options in (gone, unreadable):
        transport = Connection(lab.config(**options)).transport
        assert isinstance(transport, hand_off.HandOffTransport)
        with pytest.raises((ConfigError, TransportError)):
            await transport.open()
        assert transport._http.publisher._session is None
    assert not (tmp_path / "inbox.db").exists(), "the store was not opened"


async def test_what_protoflow_itself_consumes_opens_no_port(lab: Lab, tmp_path: Path) -> None:
    """A dashboard or `tail` runs beside the service that has the port."""
    config = lab.config(**store(tmp_path))
    async with Connection(config) as connection:
        reading = asyncio.ensure_future(anext(_broadcast(connection.transport, "orders")))
        async with Neighbours(connection.transport, config, None):
            await asyncio.sleep(0.2)
            assert not reading.done()
            with pytest.raises(OSError, match="Cannot connect"):
                await lab.post('"x"')
        await connection.publish(Message(id="1", topic="orders", payload=b"x"))
        assert (await asyncio.wait_for(reading, 10)).message.id == "1"


@pytest.mark.parametrize("url", ["memory://", "nats://localhost"])
async def test_a_store_must_be_durable(lab: Lab, url: str) -> None:
    with pytest.raises(ConfigError, match="is not durable"):
        async with lab.receiving(Runs().work, hand_off=url):
            pass


async def test_two_stores_behind_one_path_are_refused(lab: Lab, tmp_path: Path) -> None:
    other: dict[str, Any] = {"hand_off": f"sqlite:///{tmp_path}/other.db"}
    for first, second in ((store(tmp_path), other), ({}, other), (other, {})):
        async with lab.receiving(Runs().work, **first):
            with pytest.raises(ConfigError, match="receives orders already"):
                async with lab.receiving(Runs().work, groups=("mailing",), **second):
                    pass


@pytest.mark.parametrize("mode", ["batch", "binary"])
async def test_two_senders_may_use_one_id(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    stored: list[str | None] = []
    async with lab.receiving(Runs().work, **store(tmp_path)) as service:
        inner = service.transport._store  # type: ignore[attr-defined]
        submit = inner.submit

        def noting(messages: Sequence[Message]) -> Any:
            stored.extend(message.deduplication_id for message in messages)
            return submit(messages)

        monkeypatch.setattr(inner, "submit", noting)
        same = {"id": "1", "type": TYPE, "specversion": "1.0"}
        if mode == "batch":
            events = [{**same, "source": source, "data": "x"} for source in ("/a", "/b", "/a")]
            assert (await lab.post(json.dumps(events), content_type=BATCH))[0] == 202
        else:
            for source in ("/a", "/b", "/a"):
                headers = {f"ce-{name}": value for name, value in same.items()}
                assert (await lab.post('"x"', **headers, ce_source=source))[0] == 202
    assert stored[0] == stored[2] != stored[1]


async def test_what_may_pass_is_the_answer_to_a_batch(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab.receiving(Runs().work, **store(tmp_path)) as service:
        inner = service.transport._store  # type: ignore[attr-defined]

        def failing(messages: Sequence[Message]) -> Any:
            result = asyncio.get_running_loop().create_future()
            result.set_result([PublishRefusedError("never"), PublishError("not now")])
            return result

        monkeypatch.setattr(inner, "submit", failing)
        assert (await lab.post('"x"'))[0] == 503


async def test_what_is_being_stored_is_bounded_although_its_senders_left(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_off, "_MOST", 2)
    async with lab.receiving(Runs().work, answer_timeout=0.05, **store(tmp_path)) as service:
        inner = service.transport._store  # type: ignore[attr-defined]
        waiting = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(inner, "submit", lambda _: waiting)
        assert [(await lab.post('"x"'))[0] for _ in range(3)] == [503, 503, 429]
        waiting.set_result([None])
        await asyncio.sleep(0)
        assert (await lab.post('"x"'))[0] == 202
