from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Context, Output, Service, testing
from protoflow.contract.spec import BatchPolicy
from protoflow.errors import ConfigError
from protoflow.message import Message, SettleResult
from protoflow.middleware.dedup_stores import Key, MemoryDeduplication, SQLiteDeduplication
from protoflow.middleware.deduplicate import deduplicate
from protoflow.transports.memory.subscription import MemorySubscription

from tests.middleware.harness import NAME, TO_DONE, TO_WORK, config, nothing, put, running, worker


class Recorder:
    def __init__(self, fails: int = 0) -> None:
        self.seen: list[str] = []
        self.fails = fails

    async def __call__(self, message: Any, _context: Context) -> None:
        self.seen.append(message.value)
        if self.fails:
            self.fails -= 1
            raise ValueError


async def send(service: Any, value: str, id: str) -> None:
    await service.publish_outputs(TO_WORK, [Output(StringValue(value=value), id=id)])
    await service.settled()


async def test_a_copy_is_skipped_by_id_per_handler() -> None:
    first, second = Recorder(), Recorder()
    handlers = (worker(first), worker(second, name="test.v1.Second.Do", group="second"))
    async with running(*handlers, middleware=[deduplicate(MemoryDeduplication())]) as service:
        await send(service, "a", "1")
        await send(service, "a", "1")
        await send(service, "a", "2")
        stats = service.service.stats()[NAME]
    assert first.seen == second.seen == ["a", "a"]
    assert (stats.handled, stats.skipped) == (2, 1)


async def test_a_copy_is_skipped_by_field() -> None:
    handler = Recorder()
    middleware = deduplicate(MemoryDeduplication(), field="value")
    async with running(worker(handler), middleware=[middleware]) as service:
        await put(service, "a", "b", "", "")
        await put(service, "a")
    assert handler.seen == ["a", "b", "", ""]


async def test_retries_and_replays_are_never_swallowed() -> None:
    handler = Recorder(fails=4)
    async with running(worker(handler), middleware=[deduplicate(MemoryDeduplication())]) as service:
        await send(service, "a", "1")
        assert len(service.dead_letters) == 1
        await service.service.dead_letters.replay("work..workers..dead")
        await service.settled()
        assert service.service.stats()[NAME].handled == 1
        await send(service, "a", "1")
    assert len(handler.seen) == 5


async def test_success_is_written_when_the_outputs_are_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    async def handler(_message: object, _context: Context) -> Int64Value:
        nonlocal calls
        calls += 1
        return Int64Value(value=calls)

    store = MemoryDeduplication()
    async with running(
        worker(handler, publication=TO_DONE), middleware=[deduplicate(store)]
    ) as service:
        settle = MemorySubscription.settle
        away = True
        remembered: list[int] = []

        def lost(self: MemorySubscription, settlements: Any) -> Any:
            nonlocal away
            if not away:
                return settle(self, settlements)
            away = False
            remembered.append(len(store))
            answer = asyncio.get_running_loop().create_future()
            answer.set_result([SettleResult.UNKNOWN] * len(settlements))
            return answer

        monkeypatch.setattr(MemorySubscription, "settle", lost)
        await send(service, "a", "1")
        await asyncio.sleep(0)
        await service.settled()
        assert remembered == [0], "nothing is written before the outputs are confirmed"
        assert calls == 1, "the outputs are published again, and the handler is not run again"
        assert len(service.published(Int64Value)) == 1
        assert len(store) == 1
        await send(service, "a", "1")
    assert calls == 1


async def test_ids_of_two_sources_are_two_messages_and_long_ones_stay_small() -> None:
    seen: list[str] = []

    async def handle(message: Message, _context: Context) -> None:
        seen.append(message.id)

    def setup(service: Service) -> None:
        service.register_message_handler("raw", "in", handle)

    store = MemoryDeduplication()
    async with testing.run(config=config(), middleware=[deduplicate(store)], setup=setup) as tested:
        for source, id in (
            ("/a", "1"), ("/b", "1"), ("/a", "1"), ("/a1", ""), ("/a", "x" * 9000),
            ("/a", "x" * 9000), ("/a", "x" * 8999),
        ):  # fmt: skip
            await tested.service.publish(
                Message(id=id or "1", topic="in", payload=b"", metadata={"ce_source": source})
            )
            await tested.settled()
    assert [len(id) for id in seen] == [1, 1, 1, 9000, 8999]
    assert all(len(key[2]) <= 220 for key in store._entries)


async def test_a_store_that_fails_after_success_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryDeduplication):
        async def add(self, key: Key, /) -> None:
            raise OSError("disk full")

    async def handler(_message: object, _context: Context) -> Int64Value:
        return Int64Value(value=1)

    async with running(
        worker(handler, publication=TO_DONE), middleware=[deduplicate(Broken())]
    ) as service:
        await send(service, "a", "1")
        await asyncio.sleep(0)
        assert service.service.stats()[NAME].handled == 1
    records = [r.__dict__ for r in caplog.records if "not recorded" in r.getMessage()]
    assert [record["error"] for record in records] == ["OSError"]


async def test_what_is_asked_for_must_be_there() -> None:
    with pytest.raises(ConfigError, match="no field 'order'"):
        async with running(
            worker(nothing), middleware=[deduplicate(MemoryDeduplication(), field="order")]
        ):
            pass
    with pytest.raises(ConfigError, match="batches"):
        async with running(
            worker(nothing, batch=BatchPolicy()), middleware=[deduplicate(MemoryDeduplication())]
        ):
            pass


async def test_memory_is_bounded() -> None:
    store = MemoryDeduplication(size=10, ttl=3600)
    for index in range(100):
        await store.add(("g", "h", str(index)))
    assert len(store) == 10
    assert await store.contains(("g", "h", "99"))
    assert not await store.contains(("g", "h", "0"))
    expired = MemoryDeduplication(ttl=-1)
    await expired.add(("g", "h", "1"))
    assert not await expired.contains(("g", "h", "1"))


async def test_a_file_remembers_over_restarts_and_forgets_in_time(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    async with SQLiteDeduplication(path) as store:
        await store.add(("g", "h", "1"))
        await store.add(("g", "h", "1"))
    async with SQLiteDeduplication(path, ttl=-1) as store:
        assert await store.contains(("g", "h", "1"))
        assert not await store.contains(("g", "other", "1"))
        await store.add(("g", "h", "2"))
        assert not await store.contains(("g", "h", "2"))
        count = store._open().execute("SELECT COUNT(*) FROM protoflow_seen").fetchone()
        assert count == (1,)


async def test_a_file_serves_a_service(tmp_path: Path) -> None:
    handler = Recorder()
    async with (
        SQLiteDeduplication(tmp_path / "inbox.db") as store,
        running(worker(handler), middleware=[deduplicate(store)]) as service,
    ):
        await send(service, "a", "1")
        await send(service, "a", "1")
    assert handler.seen == ["a"]
