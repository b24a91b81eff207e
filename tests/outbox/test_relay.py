"""The relay of an outbox: keys in order, poison out of the way, outages waited for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow import Config, Message
from protoflow.codecs.framing import HEADER, Frame
from protoflow.errors import (
    ConnectionFailedError,
    PublishError,
    PublishRefusedError,
    TransportError,
)
from protoflow.outbox import OutboxRelay, PostgresOutbox, SQLiteOutbox
from protoflow.routing.routes import Routes
from protoflow.routing.transport import RoutedTransport

from tests.database import users

Verdict = PublishError | None
AnyOutbox = SQLiteOutbox | PostgresOutbox


class Broker:
    """Takes what `judge` lets pass, after `delay` seconds."""

    def __init__(self, judge: Callable[[Message], Verdict] = lambda message: None) -> None:
        self.judge = judge
        self.delay = 0.0
        self.taken: list[str] = []
        self.submitted: list[list[str]] = []

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[list[Verdict]]:
        return asyncio.ensure_future(self._submit(messages))

    async def _submit(self, messages: Sequence[Message]) -> list[Verdict]:
        self.submitted.append([message.id for message in messages])
        verdicts = [self.judge(message) for message in messages]
        self.taken += [
            message.id
            for message, verdict in zip(messages, verdicts, strict=True)
            if verdict is None
        ]
        if self.delay:
            await asyncio.sleep(self.delay)
        return verdicts


def message(number: int, key: bytes | None = None, **fields: Any) -> Message:
    return Message(id=str(number), topic="t", payload=b"x", key=key, **fields)


def relay_of(store: AnyOutbox, broker: Broker, **settings: Any) -> OutboxRelay:
    return OutboxRelay(store, broker, **{"poll": 0.01, **settings})  # type: ignore[arg-type]


async def empty(store: AnyOutbox, left: int = 0) -> None:
    async with asyncio.timeout(10):
        while (await store.backlog())[0] > left:
            await asyncio.sleep(0.01)


async def test_everything_goes_out_once_each_key_in_order(store: AnyOutbox) -> None:
    broker = Broker()
    kinds = [None, b"a", b"b", b""]
    await store.store([message(i, kinds[i % 4]) for i in range(200)], None)
    async with relay_of(store, broker, batch=30):
        await empty(store)
    assert sorted(map(int, broker.taken)) == list(range(200))
    for kind in (1, 2):
        of_key = [number for number in map(int, broker.taken) if number % 4 == kind]
        assert of_key == sorted(of_key)


async def test_the_frame_in_a_header_is_kept(store: AnyOutbox) -> None:
    frame = bytes(Frame(UUID(int=2**128 - 1), (0,)))
    metadata = {"a": "b"}
    await store.store([message(1, metadata=metadata, headers=((HEADER, frame),))], None)
    await store.store([message(2, metadata=metadata, headers=(("x", b"1"), (HEADER, frame)))], None)
    published: list[Message] = []
    assert await relay_of(store, Broker(published.append)).relay() == 2
    framed, forwarded = sorted(published, key=lambda each: each.id)
    assert (framed.headers, framed.metadata) == (((HEADER, frame),), metadata)
    assert (forwarded.headers, forwarded.metadata) == (None, metadata)


async def test_what_is_behind_a_failed_one_of_its_key_waits(store: AnyOutbox) -> None:
    away = True
    broker = Broker(lambda each: PublishError("away") if each.id == "1" and away else None)
    await store.store([message(i, b"k") for i in range(4)], None)
    await store.store([message(i, b"other") for i in (10, 11)], None)
    relay = relay_of(store, broker)
    assert await relay.relay() == 3
    assert broker.taken == ["0", "10", "11"]
    assert relay.problem is None, "others were taken"
    assert [item.message.id for item in await store.pending(10)] == ["1", "2", "3"]
    away = False
    await asyncio.sleep(0.02)
    assert await relay.relay() == 3
    assert broker.taken == ["0", "10", "11", "1", "2", "3"]
    assert await relay.relay() == 0


async def test_a_refused_one_is_parked_and_its_key_goes_on(
    store: AnyOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(lambda each: PublishRefusedError("too large") if each.id == "1" else None)
    await store.store([message(i, b"k") for i in range(5)], None)
    relay = relay_of(store, broker)
    async with relay:
        await empty(store)
    assert broker.taken == ["0", "2", "3", "4"]
    assert relay.parked == 1
    (record,) = [one for one in caplog.records if "was parked" in one.getMessage()]
    assert "too large" in record.__dict__["error"]
    (parked,) = await store.parked()
    assert (parked.message.id, parked.reason) == ("1", "too large [PF402]")
    broker.judge = lambda each: None
    await store.unpark([parked.position])
    async with relay_of(store, broker):
        await empty(store)
    assert broker.taken == ["0", "2", "3", "4", "1"]
    assert await store.parked() == []


async def test_one_that_never_works_throttles_nobody_and_is_parked_at_last(
    store: AnyOutbox,
) -> None:
    broker = Broker(lambda each: PublishError("odd") if each.id == "0" else None)
    await store.store([message(i, b"%d" % (i % 7)) for i in range(700)], None)
    relay = relay_of(store, broker, attempts=3, poll=0.001)
    async with relay:
        await empty(store, left=100)
        for number in range(1000, 1050):  # time goes on, and others are taken
            await store.store([message(number)], None)
            await asyncio.sleep(0.01)
            if relay.parked:
                break
        await empty(store)
    assert relay.parked == 1
    assert [each.message.id for each in await store.parked()] == ["0"]
    lane = [int(id) for id in broker.taken if int(id) < 700 and int(id) % 7 == 0]
    assert lane == list(range(7, 700, 7))


async def test_an_outage_parks_nothing_and_is_reported(store: AnyOutbox) -> None:
    away = True
    broker = Broker(lambda each: PublishError("no connection") if away else None)
    await store.store([message(i, b"%d" % (i % 300)) for i in range(600)], None)
    relay = relay_of(store, broker, attempts=2, poll=0.001)
    async with relay:
        async with asyncio.timeout(10):
            while len(broker.submitted) < 60:
                await asyncio.sleep(0.01)
        assert relay.problem == "the outbox is not relayed: no connection [PF401]"
        assert len(relay._troubles) <= 110, "it hoards nothing"
        away = False
        await empty(store)
        assert relay.problem is None
    assert relay.parked == 0
    assert sorted(map(int, broker.taken)) == list(range(600))


async def test_one_that_fails_alone_does_not_delay_what_comes(store: AnyOutbox) -> None:
    broker = Broker(lambda each: PublishError("odd") if each.id == "0" else None)
    await store.store([message(0, b"k")], None)
    async with relay_of(store, broker, poll=0.001) as relay:
        async with asyncio.timeout(10):
            while len(broker.submitted) < 8:
                await asyncio.sleep(0.001)
        assert relay.problem is not None
        await store.store([message(1)], None)
        async with asyncio.timeout(2):
            while not broker.taken or relay.problem is not None:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert relay.problem is None, "the broker is well"


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06])
async def test_a_clean_stop_publishes_nothing_twice(store: AnyOutbox, moment: float) -> None:
    broker = Broker()
    broker.delay = 0.02
    await store.store([message(i) for i in range(400)], None)
    async with relay_of(store, broker, batch=100):
        await asyncio.sleep(moment)
    async with relay_of(store, broker, batch=100):
        await empty(store)
    assert Counter(broker.taken) == Counter(str(number) for number in range(400))


async def test_a_stop_leaves_the_backlog(store: AnyOutbox) -> None:
    broker = Broker()
    broker.delay = 0.02
    await store.store([message(i, b"k") for i in range(3000)], None)
    started = asyncio.get_running_loop().time()
    async with relay_of(store, broker):
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - started < 2
    assert (await store.backlog())[0] > 2900


async def test_a_stop_does_not_wait_for_a_frozen_broker(
    store: AnyOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protoflow.outbox.relay._STOP_PATIENCE", 0.1)
    broker = Broker()
    broker.delay = 3600.0
    await store.store([message(0)], None)
    async with relay_of(store, broker):
        await asyncio.sleep(0.05)
    assert (await store.backlog())[0] == 1
    assert not [task for task in asyncio.all_tasks() if "relay" in repr(task.get_coro()).lower()]


async def test_what_was_confirmed_and_not_deleted_is_not_published_again(
    store: AnyOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    await store.store([message(0, b"k"), message(1, b"k")], None)
    relay = relay_of(store, broker)
    delete, failures = store.delete, [sqlite3.OperationalError("locked")] * 2

    async def failing(positions: Any) -> None:
        if failures:
            raise failures.pop()
        await delete(positions)

    monkeypatch.setattr(store, "delete", failing)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            await relay.relay()
    assert await relay.relay() == 0
    assert broker.taken == ["0", "1"]
    assert (await store.backlog())[0] == 0


async def test_a_store_that_was_away_leaves_no_problem(
    store: AnyOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True
    pending = store.pending

    async def failing(limit: int, behind: Any = (), **options: Any) -> Any:
        if away:
            raise sqlite3.OperationalError("disk I/O error")
        return await pending(limit, behind, **options)

    monkeypatch.setattr(store, "pending", failing)
    async with relay_of(store, Broker()) as relay, asyncio.timeout(5):
        while relay.problem is None:
            await asyncio.sleep(0.01)
        away = False
        while relay.problem is not None:
            await asyncio.sleep(0.01)


async def test_a_broker_that_raises_is_an_outage(store: AnyOutbox) -> None:
    def judge(_: Message) -> Verdict:
        raise TransportError("the connection is closed")

    await store.store([message(0)], None)
    relay = relay_of(store, Broker(judge))
    assert await relay.relay() == 0
    assert relay.problem == "the outbox is not relayed: the connection is closed [PF301]"


async def test_an_unreadable_entry_is_parked(store: AnyOutbox, url: str) -> None:
    broker = Broker()
    await store.store([message(i, b"k") for i in range(4)], None)
    await users.execute(url, "UPDATE protoflow_outbox SET metadata = '[1]' WHERE id = '1'")
    await users.execute(url, "UPDATE protoflow_outbox SET metadata = '{' WHERE id = '2'")
    relay = relay_of(store, broker)
    async with relay:
        await empty(store)
    assert broker.taken == ["0", "3"]
    assert [each.message.id for each in await store.parked()] == ["1", "2"]


@pytest.mark.parametrize(
    "fields",
    [{"payload": "text"}, {"key": "text"}, {"metadata": {"a": 1}}, {"topic": "\ud800"}],
)
async def test_what_is_no_message_is_refused_when_it_is_stored(
    store: AnyOutbox, fields: dict[str, Any]
) -> None:
    bad = message(1)
    for name, value in fields.items():
        setattr(bad, name, value)
    with pytest.raises(PublishRefusedError, match="cannot be stored"):
        await store.store([message(0), bad], None)
    assert (await store.backlog())[0] == 0


async def test_a_table_of_another_version_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE protoflow_outbox (position INTEGER PRIMARY KEY)")
    connection.close()
    store = SQLiteOutbox(path)
    with pytest.raises(
        ConnectionFailedError, match="let the Protoflow of that version publish its messages"
    ):
        await relay_of(store, Broker()).__aenter__()
    await store.close()


KEYS = (b"a", b"b", None)


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=25),
    fates=st.lists(st.sampled_from(["ok", "ok", "ok", "later", "never", "raise"]), max_size=60),
    batch=st.integers(1, 6),
)
def test_whatever_fails_each_key_is_in_order_and_nothing_is_lost(
    keys: list[bytes | None], fates: list[str], batch: int
) -> None:
    asyncio.run(_play(keys, list(fates), batch))


async def _play(keys: list[bytes | None], fates: list[str], batch: int) -> None:
    fates.reverse()

    def judge(_: Message) -> Verdict:
        fate = fates.pop() if fates else "ok"
        if fate == "raise":
            raise OSError("gone")
        return {
            "ok": None, "later": PublishError("later"), "never": PublishRefusedError("never")
        }[fate]  # fmt: skip

    store = SQLiteOutbox(":memory:")
    broker = Broker(judge)
    await store.store([message(i, key) for i, key in enumerate(keys)], None)
    relay = relay_of(store, broker, batch=batch, attempts=3, poll=0.0001)
    async with asyncio.timeout(20):
        while (await store.backlog())[0]:
            await relay.relay()
            await asyncio.sleep(0.0005)
    parked = {each.message.id for each in await store.parked()}
    await store.close()
    lanes: dict[bytes, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for id in broker.taken:
        if id not in seen and (key := keys[int(id)]) is not None:
            lanes[key].append(int(id))
        seen.add(id)
    for numbers in lanes.values():
        assert numbers == sorted(numbers)
    assert seen | parked == {str(number) for number in range(len(keys))}


async def test_an_outage_of_one_transport_parks_nothing_while_another_works() -> None:
    away = True
    down = Broker(lambda _message: PublishError("away") if away else None)
    works = Broker()
    config = Config(
        environ={}, transport="memory://", transports={"audit": "memory://audit"},
        topics={"audited": {"transport": "audit"}},
    )  # fmt: skip
    parts: Any = {"default": works, "audit": down}
    routed: Any = RoutedTransport(parts, Routes(config))
    store = SQLiteOutbox(":memory:")
    await store.store([replace(message(0, b"k"), topic="audited")], None)
    relay = relay_of(store, routed, attempts=2, poll=0.0001)
    for number in range(1, 9):
        await store.store([message(number, b"%d" % number)], None)
        await relay.relay()
        await asyncio.sleep(0.02)
    assert works.taken == [str(number) for number in range(1, 9)]
    assert len(down.submitted) > 2, "it was tried more often than `attempts`"
    assert relay.parked == 0
    away = False
    async with asyncio.timeout(20):
        while not down.taken:
            await relay.relay()
            await asyncio.sleep(0.01)
    await store.close()
