"""A service with a journal: failures always, successes on demand, operators, minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Context, Message, Service, connect, wire
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.journal import Event, JournalReader
from protoflow.outcomes import Skip

TWICE = DeliveryPolicy(retry=RetryPolicy(max_attempts=2, initial_backoff=0.001))
DEAD = "orders..billing..dead"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def handle(message: Message, context: Context) -> Any:
    if message.id == "skip":
        raise Skip("not ours")
    if message.id.startswith("bad"):
        raise ValueError("no sum")
    caused = {wire.CAUSATION_ID: message.id}
    return Message(id=f"{message.id}-billed", topic="billed", payload=b"", metadata=caused)


async def served(path: str, *ids: str, **settings: Any) -> Service:
    """A service that has handled messages of these ids, and has stopped."""
    url = f"sqlite:///{Path(path).with_name('queue.db')}"
    service = Service(Config(transport=url, environ={}, journal=path, **settings))
    service.register_message_handler("billing", "orders", handle, delivery=TWICE)
    async with service:
        messages = [Message(id=id, topic="orders", payload=b"") for id in ids]
        await service.publish(*messages)
        stats = service.stats()["billing"]
        await until(lambda: stats.handled + stats.dead_lettered + stats.skipped == len(ids))
    return service


async def test_failed_runs_and_their_end_are_journaled_and_successes_are_not(path: str) -> None:
    await served(path, "good", "bad", "skip")
    with JournalReader(path) as reader:
        assert reader.timeline("good") == reader.timeline("skip") == []
        first, second, dead = reader.timeline("bad")
        assert (first.event, first.attempt, first.detail) == (Event.FAILED, 1, "again in 0.0 s")
        assert (second.event, second.attempt) == (Event.FAILED, 2)
        assert second.detail == "dead-lettered"
        assert first.error == second.error == "ValueError: no sum"
        assert (dead.event, dead.topic, dead.group) == (Event.DEAD_LETTERED, DEAD, "billing")
        (minute,) = {one.handler for one in reader.minutes()}
        assert minute == "billing"
        counts = [one.counts for one in reader.minutes()]
        assert [
            sum(one[name] for one in counts)
            for name in ("handled", "failed_runs", "retried", "dead_lettered", "skipped")
        ] == [1, 2, 1, 1, 1]
        assert sum(one.runs for one in reader.minutes()) == 4


async def test_with_successes_the_whole_way_is_journaled(path: str) -> None:
    await served(path, "good", "bad", "skip", journal_successes=True)
    with JournalReader(path) as reader:
        published, received, handled = reader.timeline("good")
        assert (published.event, published.topic) == (Event.PUBLISHED, "orders")
        assert (received.event, received.attempt) == (Event.RECEIVED, 1)
        assert (handled.event, handled.handler) == (Event.HANDLED, "billing")
        assert [one.event for one in reader.timeline("bad")] == [
            *("published", "received", "failed", "received", "failed", "dead-lettered")
        ]
        assert reader.timeline("skip")[-1].event is Event.SKIPPED
        (billed,) = reader.timeline("good-billed")
        assert (billed.event, billed.cause) == (Event.PUBLISHED, "good")
        assert reader.caused("good") == [billed]


async def test_what_operators_do_is_journaled(path: str) -> None:
    await served(path, "bad-1", "bad-2")
    config = Config(
        transport=f"sqlite:///{Path(path).with_name('queue.db')}", environ={}, journal=path,
        client_name="ops",
    )  # fmt: skip
    service = Service(config)
    service.register_message_handler("billing", "orders", handle, delivery=TWICE)
    async with service:
        service.pause("billing")
        assert await service.dead_letters.replay(DEAD, ["bad-1"], to_origin=True) == 1
        assert await service.dead_letters.purge(DEAD) == 1
        service.resume("billing")
        assert service.journal is not None
        service.journal.record_action("drain", "billing", detail="before a deploy")
    with JournalReader(path) as reader:
        found = [(one.action, one.target, one.count) for one in reversed(reader.actions())]
        assert found == [
            *(("pause", "billing", 0), ("replay", DEAD, 1), ("purge", DEAD, 1)),
            *(("resume", "billing", 0), ("drain", "billing", 0)),
        ]
        (replayed,) = [one for one in reader.timeline("bad-1") if one.event is Event.REPLAYED]
        assert replayed.detail == "by ops to the original topic"


async def test_a_connection_journals_what_it_publishes(path: str) -> None:
    url = f"sqlite:///{Path(path).with_name('queue.db')}"
    settings = {"environ": {}, "journal": path, "journal_successes": True}
    async with connect(url, **settings) as connection:
        await connection.publish(Message(id="a", topic="orders", payload=b""))
    with JournalReader(path) as reader:
        (published,) = reader.timeline("a")
        assert published.event is Event.PUBLISHED


async def test_a_journal_that_cannot_be_written_hurts_nobody(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).mkdir()
    service = await served(path, "good", "bad", journal_successes=True)
    stats = service.stats()["billing"]
    assert (stats.handled, stats.dead_lettered) == (1, 1)
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "journal cannot be written" in text]) == 1
    assert [text for text in texts if text.startswith("the journal lost")]


async def test_without_a_journal_nothing_of_it_is_loaded_into_the_chain(tmp_path: Path) -> None:
    service = Service(Config(transport=f"sqlite:///{tmp_path / 'queue.db'}", environ={}))
    service.register_message_handler("billing", "orders", handle, delivery=TWICE)
    async with service:
        (scheduler,) = service.subscriptions
        (route,) = scheduler.router.all
        assert route.spec.journal is None
        assert "journaled" not in route.run.__qualname__
    assert [file.name for file in tmp_path.iterdir() if "journal" in file.name] == []
