"""Lanes: whatever members do with messages and replays of a key, each is handled, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.postgresql import members, waiting_moves
from protoflow.transports.postgresql.buckets import Buckets
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.dead_letters import PostgresScan
from protoflow.transports.postgresql.publishing import Limits
from protoflow.transports.postgresql.settling import Settler
from protoflow.transports.postgresql.transport import PostgresTransport

from tests.transports.postgresql.harness import MEGABYTE, TestSchema, settings_of

#: In a bucket of the first half, and in one of the second: each member owns a half.
_KEYS = (b"b", b"d")
_DAY = 86_400.0
_SHIFT = """
CREATE TABLE {s}.shift (seconds float8 NOT NULL);
INSERT INTO {s}.shift VALUES (0);
CREATE OR REPLACE FUNCTION {s}.now() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::float8 + seconds FROM {s}.shift $$;
"""


class Loop:
    """The loop of this test, with another time."""

    def __init__(self) -> None:
        self.shift = 0.0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self._loop.time() + self.shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Member:
    """A member of the group, which does nothing by itself."""

    def __init__(self, database: Database, settings: Any, loop: Loop) -> None:
        self.membership = members.Membership(database, settings)
        self.membership.seconds = 1e9
        self.held: list[Delivery] = []
        self._database = database
        self._loop = loop

    async def join(self) -> None:
        database, membership = self._database, self.membership
        await membership.join()
        self.buckets = Buckets(
            database, membership, lambda _: None, self._revoke, lambda: (), lambda _: ()
        )
        buckets = cast("Any", self.buckets)
        for each in (buckets, buckets._ownership, buckets._reader, buckets._moves):
            each._loop = self._loop
        self.settler = Settler(database, Limits(MEGABYTE), self.buckets, lambda _: None)

    async def share(self) -> None:
        await self.buckets._ownership._balance()

    async def _revoke(self, numbers: Collection[int]) -> None:
        self.held = [each for each in self.held if each.shard not in numbers]

    async def end(self) -> None:
        """The process dies, and another takes its place."""
        await self._database.fetch(
            "UPDATE {s}.members SET until = 0 WHERE id = $1", self.membership.id
        )
        await members.end_expired(self._database)
        self.held = []
        await self.join()
        await self.share()


class Group:
    """Two members of one group."""

    def __init__(self, transport: PostgresTransport, ordering: Ordering, topic: str) -> None:
        self.transport = transport
        self.database = transport._database
        self.loop = Loop()
        self.ordering = ordering
        self.topic = topic
        self.published = 0
        self.done: list[tuple[str, bytes, int]] = []
        sources = transport.dead_letters.sources
        self._scan = PostgresScan(
            self.database, sources, lambda _: None, topic, bounds=(0, 0), ids=None
        )
        settings = settings_of(ordering, topic)
        self.members = [Member(self.database, settings, self.loop) for _ in range(2)]

    async def start(self) -> None:
        for member in self.members:
            await member.join()
            await member.share()

    async def publish(self, key: bytes, *, replayed: bool, delay: float) -> None:
        self.published += 1
        kind = "replay" if replayed else "new"
        message = Message(
            id=str(self.published),
            topic=self.topic,
            key=key,
            payload=b"",
            metadata={"kind": kind},
            delay=delay,
        )
        if not replayed:
            assert await self.transport.submit([message]) == [None]
            return
        group = self.members[0].membership.group.id
        topics = await self.database.topic_ids([self.topic])
        async with self.database.transaction() as connection:
            await self._scan._store(connection, message, group, topics)

    async def fetch(self, index: int, limit: int) -> None:
        member = self.members[index]
        member.held += await member.buckets.fetch(limit, MEGABYTE)
        await asyncio.sleep(0)
        for key in _KEYS:
            holders = [
                each for each in self.members if any(d.message.key == key for d in each.held)
            ]
            assert len(holders) <= 1, f"{key!r} is held by two members at once"

    async def settle(self, index: int, *, delay: float | None) -> None:
        """Acknowledges the first that a member holds, or gives its whole lane back."""
        member = self.members[index]
        if not member.held:
            return
        first, *rest = member.held
        if delay is None:
            assert await member.settler.settle([Settlement(first)]) == [SettleResult.DONE]
            key = first.message.key
            assert key is not None
            self.done.append((first.message.metadata["kind"], key, int(first.message.id)))
            member.held = rest
            return
        behind = [each for each in rest if self._lane(each) == self._lane(first)]
        failed = Settlement(first, Action.NACK, delay=delay, failures=1, first_failure=1.0)
        given = [failed, *(Settlement(each, Action.RELEASE) for each in behind)]
        assert {*await member.settler.settle(given)} == {SettleResult.DONE}
        member.held = [each for each in rest if each not in behind]

    def _lane(self, delivery: Delivery) -> object:
        key = delivery.message.key if self.ordering is Ordering.PER_KEY else None
        return delivery.shard, key

    async def wait(self, seconds: float) -> None:
        self.loop.shift += seconds
        await self.database.fetch("UPDATE {s}.shift SET seconds = seconds + $1", seconds)

    async def drain(self) -> None:
        """Everything that is left is handled, by whoever gets it."""
        for _ in range(4 * self.published + 10):
            if len(self.done) == self.published:
                return
            await self.wait(_DAY)
            for index, member in enumerate(self.members):
                await member.share()
                await self.fetch(index, 8)
                while member.held:
                    await self.settle(index, delay=None)
        raise AssertionError(f"{self.published - len(self.done)} messages stay unhandled")


_STEPS = st.one_of(
    st.tuples(
        st.just("publish"),
        st.sampled_from(_KEYS),
        st.booleans(),
        st.sampled_from([0.0, 0.0, 0.0, 60.0]),
    ),
    st.tuples(st.just("fetch"), st.integers(0, 1), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from([None, None, 0.0, 60.0])),
    st.tuples(st.just("end"), st.integers(0, 1)),
    st.tuples(st.just("share"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 70.0])),
)


@pytest.mark.parametrize("ordering", [Ordering.PER_KEY, Ordering.PER_PARTITION])
@given(steps=st.lists(_STEPS, min_size=10, max_size=40))
@example(  # a replay that waits, of a member that ends, goes before the next of its key
    steps=[
        *[("publish", b"b", True, 0.0)] * 2,
        ("fetch", 0, 1),
        ("settle", 0, 60.0),
        ("end", 0),
        *[("fetch", 0, 1), ("settle", 0, None), ("fetch", 1, 1), ("settle", 1, None)] * 2,
    ]
)
@example(  # a delayed message that was moved goes before the next of its key
    steps=[
        ("publish", b"b", False, 60.0),
        ("fetch", 0, 1),
        ("publish", b"b", False, 0.0),
        *[("fetch", 0, 1), ("settle", 0, None)],
        ("end", 0),
        *[("fetch", 0, 1), ("settle", 0, None), ("fetch", 1, 1), ("settle", 1, None)] * 2,
    ]
)
@example(  # a delayed message that was moved stays behind what a member that ends had in hand
    steps=[
        ("publish", b"b", False, 0.0),
        ("publish", b"b", False, 60.0),
        ("fetch", 0, 2),
        ("end", 0),
    ]
)
@example(  # and behind what failed, and waits longer
    steps=[
        ("publish", b"b", False, 0.0),
        ("publish", b"b", False, 60.0),
        ("fetch", 0, 2),
        ("wait", 70.0),
        ("settle", 0, 60.0),
        ("end", 0),
        *[("fetch", 0, 2), ("settle", 0, None), ("fetch", 1, 2), ("settle", 1, None)],
    ]
)
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_everything_is_handled_in_turn(
    place: TestSchema,
    monkeypatch: pytest.MonkeyPatch,
    ordering: Ordering,
    steps: list[tuple[object, ...]],
) -> None:
    monkeypatch.setattr(waiting_moves, "CROWDED", 1)
    transport = await _shared(place)
    topic = f"t{(await place.run('SELECT nextval($${s}.log_seq$$)'))[0][0]}"
    group = Group(transport, ordering, topic)
    await group.start()
    for step in steps:
        match step:
            case ("publish", bytes() as key, bool() as replayed, float() as delay):
                await group.publish(key, replayed=replayed, delay=delay)
            case ("fetch", int() as member, int() as limit):
                await group.fetch(member, limit)
            case ("settle", int() as member, (None | float()) as delay):
                await group.settle(member, delay=delay)
            case ("end", int() as member):
                await group.members[member].end()
            case ("share", int() as member):
                await group.members[member].share()
            case ("wait", float() as seconds):
                await group.wait(seconds)
    await group.drain()
    for kind in ("new", "replay"):
        for key in _KEYS:
            order = [number for k, of, number in group.done if (k, of) == (kind, key)]
            assert order == sorted(order)


async def _shared(place: TestSchema) -> PostgresTransport:
    """The transport of all examples, on a schema whose time can be set."""
    if not place._transports:
        transport = await place.open()
        await place.admin.execute(_SHIFT.replace("{s}", place.schema))
        return transport
    return place._transports[0]
