"""Rows of sqlite: damaged ones, marked ones, and those that are held."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from protoflow.clock import Clock
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import TransportError
from protoflow.message import Action, Message, Settlement, SettleResult

from tests.transports.harness import Listener, ack, messages, opened, settings, take


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


def change(url: str, statement: str, *values: object) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///"), timeout=5) as connection:
        connection.execute(statement, values)
    connection.close()


# Damaged rows.

UNREADABLE = {
    "no JSON": "'not json'",
    "two heads": """'["a",{},null,0,1],["b",{},null,0,1]'""",
    "nothing": "''",
    "other types": """'[1,[],5,"x","y"]'""",
    "metadata of other types": """'["a",{"content-type":5,"ce_type":[1]},null,0,1]'""",
    "a deep list": f"""'["a",{"[" * 2000}'""",
    "an odd key": """'["a",{},"abc",0,1]'""",
    "a negative size": """'["a",{},null,0,-1000000]'""",
    "a size that is none": """'["a",{},null,0,1e400]'""",
    "a time that is none": """'["a",{},null,NaN,1]'""",
    "no UTF-8": "CAST(x'5b22ff225d' AS TEXT)",
}


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
@pytest.mark.parametrize("kind", UNREADABLE)
async def test_a_damaged_row_is_unreadable_and_its_neighbours_are_not(
    url: str, kind: str, ordering: Ordering
) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(5))
    change(
        url,
        f"UPDATE protoflow_messages SET head = {UNREADABLE[kind]} WHERE sequence % 1024 = 3",
    )
    for _ in range(2):  # and again after a restart
        async with opened(url) as transport:
            subscription = await transport.subscribe(settings(ordering=ordering), Listener())
            batch = await take(subscription, 5)
            assert [each.unreadable is not None for each in batch] == [
                False, False, True, False, False,
            ]  # fmt: skip
            assert [each.message.payload for each in batch] == [b"0", b"1", b"2", b"3", b"4"]
            bad = batch[2]
            assert "cannot be read" in (bad.unreadable or "")
            assert bad.size >= 0
            assert bad.message.id == "t/3"
            await subscription.settle([Settlement(each, Action.RELEASE) for each in batch])
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(ordering=ordering), Listener())
        await ack(subscription, await take(subscription, 5))
        assert (await transport.lag("t", "g")).messages == 0


@pytest.mark.parametrize(
    "change_to",
    [
        "payload = 'text'", "payload = 12345", "size = -100000000000", "size = 'large'",
        "due = 'abc'", "due = 'a,b'", "key = 7", "time = 'now'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY, Ordering.PER_PARTITION])
async def test_a_column_of_another_type_stops_nothing(
    url: str, change_to: str, ordering: Ordering
) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(5, key=b"k"))
    change(url, f"UPDATE protoflow_messages SET {change_to} WHERE sequence % 1024 = 3")
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(ordering=ordering), Listener())
        batch = await take(subscription, 5)
        assert [each.message.id for each in batch] == [f"m{number}" for number in range(5)]
        await ack(subscription, batch)


async def test_a_damaged_row_in_a_dead_letter_topic_is_a_dead_letter(url: str) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(3, "t..g..dead"))
    change(url, "UPDATE protoflow_messages SET head = '{' WHERE sequence % 1024 = 2")
    async with opened(url) as transport:
        await transport.subscribe(settings(dead_letter_topics=("t..g..dead",)), Listener())
        assert await dead_letters_of(transport).count("t..g..dead") == 3
        dead_letters = await dead_letters_of(transport).list("t..g..dead")
        assert dead_letters[1].message.payload == b"1"
        assert await dead_letters_of(transport).purge("t..g..dead") == 3


# Marks and counts.


async def test_the_orderly_end_of_a_process_clears_marks_and_a_killed_one_does_not(
    url: str,
) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(1))
        (delivery,) = await take(subscription)
        await subscription.mark(delivery)
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        (delivery,) = await take(subscription)
        assert not delivery.suspect
        await subscription.mark(delivery)
        change(url, "UPDATE protoflow_sessions SET deadline = 0, expires = 0")  # as if killed
        async with opened(url) as other:
            again = await other.subscribe(settings(), Listener())
            (delivery,) = await take(again)
            assert delivery.suspect
            assert await again.isolate(delivery) == (delivery, 1)


async def test_a_late_end_clears_its_own_mark_only(url: str) -> None:
    async with opened(url) as late, opened(url) as other:
        first = await late.subscribe(settings(), Listener())
        await late.submit(messages(1))
        (mine,) = await take(first)
        await first.mark(mine)
        change(url, "UPDATE protoflow_sessions SET deadline = 0, expires = 0")
        second = await other.subscribe(settings(), Listener())
        (theirs,) = await take(second)
        await second.mark(theirs)
        assert await second.isolate(theirs) == (theirs, 2)
        await first.clear(mine)
        assert await second.isolate(theirs) == (theirs, 1)
        assert await first.settle([Settlement(mine)]) == [SettleResult.LOST]
        with pytest.raises(TransportError, match="was lost"):
            await first.mark(mine)
        await ack(second, [theirs])
        await second.clear(theirs)  # settled: nothing to do


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_what_is_held_too_long_is_given_back_uncounted(url: str, ordering: Ordering) -> None:
    """A message that blocks its key is held for `max_hold` again and again."""
    async with opened(f"{url}?lease=150ms") as transport:
        listener = Listener()
        held = settings(ordering=ordering, max_hold=0.05)
        subscription = await transport.subscribe(held, listener)
        await transport.submit(messages(3, key=b"k"))
        for round in range(1, 4):
            batch = await take(subscription, 3)
            assert [each.deliveries for each in batch] == [1, 1, 1], round
            async with asyncio.timeout(5):
                while len(listener.lost) < 3 * round:
                    await asyncio.sleep(0.02)
        await ack(subscription, await take(subscription, 3))


async def test_available_counts_what_this_member_could_claim(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        ordered = settings(ordering=Ordering.PER_KEY)
        first = await one.subscribe(ordered, Listener())
        second = await two.subscribe(ordered, Listener())
        assert await first.available() == 0
        await one.submit([*messages(3, key=b"a"), *messages(2, key=b"b", delay=60.0)])
        assert await first.available() == await second.available() == 3
        (delivery,) = await take(first)
        assert await first.available() == 2
        assert await second.available() == 0, "its key is held by another"
        first.pause([0])
        assert await first.available() == 0
        await ack(first, [delivery])


# Leases.


class Jumping(Clock):
    """A wall clock that somebody sets."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


async def test_a_wall_clock_that_jumps_ends_no_lease(url: str) -> None:
    clock = Jumping()
    async with opened(url) as holder, opened(url, clock=clock) as other:
        first = await holder.subscribe(settings(), Listener())
        await holder.submit(messages(1))
        (delivery,) = await take(first)
        clock.ahead = 86400.0
        second = await other.subscribe(settings(), Listener())
        await other.end_expired()
        with pytest.raises(TimeoutError):
            await take(second, within=0.2)
        await ack(first, [delivery])


async def test_what_an_earlier_start_of_the_machine_left_is_judged_by_the_wall_clock(
    url: str,
) -> None:
    async with opened(url) as transport:
        await transport.subscribe(settings(), Listener())
        change(url, "UPDATE protoflow_sessions SET boot = 'before', deadline = 1e12")
        await transport.end_expired()
        count = "SELECT count(*) FROM protoflow_sessions"
        assert await transport.worker.call(lambda own: own.execute(count).fetchone()) == (1,)
        change(url, "UPDATE protoflow_sessions SET expires = 1")
        await transport.end_expired()
        assert await transport.worker.call(lambda own: own.execute(count).fetchone()) == (0,)


# A file that others lock.


async def test_what_could_not_be_settled_while_the_file_was_locked_is_repeated(url: str) -> None:
    async with opened(f"{url}?busy_timeout=50ms") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(3))
        batch = await take(subscription, 3)
        output = Message(id="o", topic="out", payload=b"")
        settlements = [
            Settlement(batch[0], outputs=[output]),
            Settlement(batch[1], Action.NACK, failures=1),
            Settlement(batch[2]),
        ]
        other = sqlite3.connect(transport.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(TransportError, match="busy_timeout"):
                await subscription.settle(settlements)
        other.execute("ROLLBACK")
        other.close()
        assert await subscription.settle(settlements) == [SettleResult.DONE] * 3
        reader = await transport.subscribe(settings("out"), Listener())
        assert len(await take(reader)) == 1
        (again,) = await take(subscription)
        assert (again.message.id, again.failures) == ("m1", 1)
        await ack(subscription, [again])


async def test_a_new_session_that_cannot_begin_ends_no_subscription(url: str) -> None:
    async with opened(f"{url}?busy_timeout=50ms") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        begin = subscription.session_lease.begin
        failures = [TransportError("database is locked")] * 2

        async def failing() -> None:
            if failures:
                raise failures.pop()
            await begin()

        subscription.session_lease.begin = failing
        change(url, "DELETE FROM protoflow_sessions")
        receiving = asyncio.ensure_future(subscription.receive(1, 100))
        await transport.submit(messages(1))
        assert len(await asyncio.wait_for(receiving, 10)) == 1
        assert not failures


async def test_the_end_is_bounded_while_another_process_holds_the_lock(url: str) -> None:
    locked = f"{url}?busy_timeout=400ms"
    async with opened(locked) as transport:
        for topic in ("t", "u", "v", "w"):
            subscription = await transport.subscribe(settings(topic), Listener())
            await transport.submit(messages(3, topic))
            await take(subscription, 3)
        other = sqlite3.connect(transport.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = asyncio.get_running_loop().time()
        await transport.close()
        assert asyncio.get_running_loop().time() - started < 5 * 0.4
        other.execute("ROLLBACK")
        other.close()


# Room for dead letters.


async def test_a_dead_letter_of_the_largest_message_fits(url: str) -> None:
    async with opened(f"{url}?max_message_bytes=1000") as transport:
        dead = "t..g..dead"
        subscription = await transport.subscribe(settings(dead_letter_topics=(dead,)), Listener())
        (largest,) = messages(1)
        largest.payload = bytes(998)
        assert await transport.submit([largest]) == [None]
        (delivery,) = await take(subscription)
        dead_letter: Any = Message(
            id="m0", topic=dead, payload=largest.payload, metadata={"pf_error_message": "x" * 8192}
        )
        assert await subscription.settle([Settlement(delivery, outputs=[dead_letter])]) == [
            SettleResult.DONE
        ]
        assert await dead_letters_of(transport).count(dead) == 1
        dead_letter.topic = "elsewhere"
        assert (await transport.submit([dead_letter]))[0] is not None
