"""Dead letters are never lost, and can be listed, shown, replayed, purged and counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, RetryPolicy
from protoflow.errors import DeadLetterNotFoundError, PublishRefusedError
from protoflow.message import Message
from protoflow.outcomes import Unprocessable

from tests.acceptance.contract import pb
from tests.acceptance.faulty import faulty_of, nothing_fails, topic_fails
from tests.acceptance.harness import Harness, Seen, failing, handler, method, task_metadata

needs = pytest.mark.needs
pytestmark = needs("at_least_once", "dead_letters")

ONCE = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))


async def test_a_dead_letter_that_cannot_be_published_is_never_acknowledged(
    harness: Harness,
) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number == 0:
            raise ValueError("bad")

    service = harness.service(handler("Work", work), policy=ONCE, faulty=True)
    async with service:
        faulty = faulty_of(service)
        faulty.rule = topic_fails(harness.dead_letter_topic())
        await harness.send(0)
        await harness.until(lambda: len(faulty.refused) >= 2)
        health = service.health()
        assert not health.ready
        assert health.live
        assert "dead letters" in str(health.problems)
        before = len(seen.runs)
        await harness.send(1, 2, 3)
        await harness.quiet(0.2)
        assert len(seen.runs) == before, "the subscription should pause"
        assert await harness.dead_letter_messages(0) == []
        faulty.rule = nothing_fails
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.until(lambda: service.health().ready)
        await harness.until(lambda: {1, 2, 3} <= set(seen.numbers))
        await harness.settled(service)
    assert pb.Task.FromString(dead_letter.payload).number == 0
    assert seen.numbers.count(0) == 1


async def test_a_dead_letter_that_cannot_be_published_before_shutdown_is_not_lost(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    service = harness.service(
        handler("Work", seen.fails), policy=ONCE, faulty=True, shutdown_timeout=0.3
    )
    async with service:
        faulty_of(service).rule = topic_fails(harness.dead_letter_topic())
        await harness.send(1)
        await harness.until(lambda: faulty_of(service).refused)
    assert await harness.dead_letter_messages(0) == []
    async with harness.running(handler("Work", seen.fails), policy=ONCE):
        await harness.dead_letter_messages(1)
    assert seen.numbers == [1, 1]


async def test_several_dead_letters_that_wait_for_the_broker_all_arrive(harness: Harness) -> None:
    seen = Seen(harness)
    service = harness.service(handler("Work", seen.fails), policy=ONCE, faulty=True)
    async with service:
        faulty_of(service).rule = topic_fails(harness.dead_letter_topic())
        await harness.send(*range(10))
        await harness.until(lambda: len(faulty_of(service).refused) >= 3)
        faulty_of(service).rule = nothing_fails
        dead_letters = await harness.dead_letter_messages(10, within=20)
        await harness.until(lambda: service.health().ready)
        await harness.send(10)
        await harness.until(lambda: 10 in seen.numbers)
    assert sorted(
        pb.Task.FromString(dead_letter.payload).number for dead_letter in dead_letters
    ) == list(range(10))


async def test_a_dead_letter_refused_for_its_size_goes_out_with_the_least_metadata(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    service = harness.service(handler("Work", seen.fails), policy=ONCE, faulty=True)

    def too_large(message: Message) -> Any:
        size = sum(map(len, message.metadata.values()))
        dead = message.topic == harness.dead_letter_topic()
        return PublishRefusedError("too large") if dead and size > 500 else None

    async with service:
        faulty_of(service).rule = too_large
        sent = await harness.publish(
            "tasks", pb.Task(number=1).SerializeToString(), metadata=task_metadata(long="x" * 600)
        )
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.until(lambda: service.health().ready)
    assert (dead_letter.id, dead_letter.payload) == (sent.id, sent.payload)
    assert "long" not in dead_letter.metadata
    assert dead_letter.metadata[wire.PF_ORIGINAL_TOPIC] == harness.physical("tasks")
    assert dead_letter.metadata[wire.PF_GROUP] == harness.physical("workers")
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "exhausted"


async def test_dead_letters_go_to_the_topic_that_the_contract_names(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Strict", seen.fails)):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1, harness.physical("given-up"))
    assert dead_letter.metadata[wire.PF_ORIGINAL_TOPIC] == harness.physical("tasks")


async def test_dead_letters_go_to_the_topic_that_the_config_names(harness: Harness) -> None:
    seen = Seen(harness)
    policy = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=1),
        dead_letter=DeadLetterPolicy(topic="{topic}.of.{group}.lost"),
    )
    async with harness.running(handler("Work", seen.fails), policy=policy):
        await harness.send(1)
        await harness.dead_letter_messages(1, harness.physical("tasks.of.workers.lost"))


async def test_each_group_has_dead_letters_of_its_own(harness: Harness) -> None:
    work, audit = Seen(harness), Seen(harness)
    async with harness.running(
        handler("Work", work.fails), handler("Audit", audit.ok), policy=ONCE
    ):
        await harness.send(1)
        await harness.dead_letter_messages(1)
        assert (
            await harness.dead_letter_messages(0, harness.dead_letter_topic("tasks", "audit")) == []
        )
    assert audit.numbers == [1]


async def test_dead_letters_can_be_counted_listed_shown_and_purged(harness: Harness) -> None:
    seen = Seen(harness)
    where = harness.dead_letter_topic()
    async with harness.running(handler("Work", seen.fails), policy=ONCE):
        ids = await harness.send(*range(5))
        await harness.dead_letter_messages(5)
    dead_letters = harness.dead_letters
    assert await dead_letters.count(where) == 5
    listed = await dead_letters.list(where, limit=3)
    assert len(listed) == 3
    shown = await dead_letters.show(where, ids[2])
    assert pb.Task.FromString(shown.message.payload).number == 2
    assert shown.message.metadata[wire.PF_ERROR_TYPE] == "ValueError"
    with pytest.raises(DeadLetterNotFoundError):
        await dead_letters.show(where, "nobody")
    assert await dead_letters.purge(where, [ids[0], ids[4]]) == 2
    left = {dead_letter.message.id for dead_letter in await dead_letters.list(where)}
    assert left == set(ids[1:4])
    assert await dead_letters.purge(where) == 3
    assert await dead_letters.count(where) == 0
    assert await dead_letters.list(where) == []


async def test_a_replay_reaches_the_failing_group_alone_with_its_id_and_fresh_attempts(
    harness: Harness,
) -> None:
    work, audit = Seen(harness), Seen(harness)
    fixed = False

    async def working(task: Any, context: Context) -> None:
        work.note(task, context)
        if not fixed:
            raise ValueError

    async with harness.running(handler("Work", working), handler("Audit", audit.ok)) as service:
        (id,) = await harness.send(1, key="k")
        await harness.dead_letter_messages(1)
        await audit.until(1)
        fixed = True
        assert await harness.dead_letters.replay(harness.dead_letter_topic()) == 1
        await work.until(4)
        await harness.settled(service)
        await harness.quiet()
        assert await harness.dead_letter_messages(0) == []
    assert work.runs == [(1, 1), (1, 2), (1, 3), (1, 1)]
    assert {context.id for context in work.contexts} == {id}
    assert {context.key for context in work.contexts} == {b"k"}
    last = work.contexts[-1].message.metadata
    assert wire.PF_DEAD_LETTER not in last
    assert wire.PF_ERROR_MESSAGE not in last
    assert work.contexts[-1].cloudevent.type == "suite.v1.Task"
    assert audit.runs == [(1, 1)]


async def test_a_replay_to_the_origin_reaches_every_group(harness: Harness) -> None:
    work, audit = Seen(harness), Seen(harness)
    async with harness.running(
        handler("Work", failing(ValueError, 1, work)), handler("Audit", audit.ok), policy=ONCE
    ):
        (id,) = await harness.send(1)
        await harness.dead_letter_messages(1)
        assert (
            await harness.dead_letters.replay(harness.dead_letter_topic(), [id], to_origin=True)
            == 1
        )
        await work.until(2)
        await audit.until(2)
    assert work.done == [1]
    assert work.attempts == [1, 1]
    assert {context.id for context in (*work.contexts, *audit.contexts)} == {id}


async def test_a_replayed_dead_letter_that_fails_again_is_a_dead_letter_again(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.fails)):
        await harness.send(1)
        for _ in range(2):
            (dead_letter,) = await harness.dead_letter_messages(1)
            assert dead_letter.metadata[wire.PF_ATTEMPT] == "3"
            await harness.dead_letters.replay(harness.dead_letter_topic())
        await harness.dead_letter_messages(1)
    assert seen.attempts == [1, 2, 3] * 3


async def test_chosen_dead_letters_are_replayed_and_the_others_stay(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", failing(ValueError, 1, seen)), policy=ONCE):
        ids = await harness.send(*range(4))
        await harness.dead_letter_messages(4)
        assert await harness.dead_letters.replay(harness.dead_letter_topic(), ids[1:3]) == 2
        await harness.until(lambda: sorted(seen.done) == [1, 2])
        left = await harness.dead_letter_messages(2)
    assert {dead_letter.id for dead_letter in left} == {ids[0], ids[3]}


async def test_a_group_that_does_not_run_gets_its_replay_later(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", failing(ValueError, 1, seen)), policy=ONCE):
        await harness.send(1)
        await harness.dead_letter_messages(1)
    assert await harness.dead_letters.replay(harness.dead_letter_topic()) == 1
    async with harness.running(handler("Work", failing(ValueError, 0, seen)), policy=ONCE):
        await harness.until(lambda: seen.done == [1])


async def test_headers_of_others_are_kept_in_the_dead_letter_and_the_replay(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    work = failing(Unprocessable("no"), 1, seen)
    metadata = task_metadata(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    async with harness.running(handler("Work", work)):
        await harness.publish("tasks", pb.Task(number=1).SerializeToString(), metadata=metadata)
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.dead_letters.replay(harness.dead_letter_topic())
        await harness.until(lambda: seen.done == [1])
    for got in (dead_letter.metadata, seen.contexts[-1].message.metadata):
        assert {name: got[name] for name in metadata} == metadata


async def test_dead_letters_are_counted(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.fails), policy=ONCE) as service:
        await harness.send(*range(3))
        await harness.dead_letter_messages(3)
        await harness.until(lambda: service.stats()[method("Work")].dead_lettered == 3)
        await asyncio.sleep(0)
        assert service.stats()[method("Work")].handled == 0
