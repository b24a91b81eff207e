"""Lanes: whatever members do with messages and replays of a key, each is handled, in turn."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message
from protoflow.transports.sqlite import schema, sessions, settling
from protoflow.transports.sqlite.claiming import Claim
from protoflow.transports.sqlite.dead_letters import _store
from protoflow.transports.sqlite.publishing import Limits, Outgoing
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.rows import UNLIMITED
from protoflow.transports.sqlite.settling import GivenBack
from protoflow.transports.sqlite.topics import Session

from tests.transports.harness import settings

_KEYS = (b"a", b"b")
_DAY = 86_400.0


@dataclass
class Members:
    """Members of one group, each in its turn, over one database."""

    connection: sqlite3.Connection
    ordering: Ordering
    now: float = 1000.0
    published: int = 0
    sessions: list[Session] = field(default_factory=list)
    held: dict[int, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    done: list[tuple[str, bytes, int]] = field(default_factory=list)

    def join(self) -> None:
        now = sessions.Moment(self.now, self.now)
        subscription = settings("t", ordering=self.ordering)
        self.sessions.append(
            sessions.begin(
                self.connection, subscription, "c", now, replace(now, running=9e9, wall=9e9)
            )
        )

    def publish(self, key: bytes, *, replayed: bool) -> None:
        self.published += 1
        kind = "replay" if replayed else "new"
        message = Message(
            id=str(self.published), topic="t", key=key, payload=b"", metadata={"kind": kind}
        )
        if replayed:
            _store(self.connection, message, self.sessions[0].group, self.now)
        else:
            outgoing = Outgoing()
            assert not outgoing.add((message,), self.now, Limits(UNLIMITED))
            outgoing.write(self.connection)

    def claim(self, member: int, limit: int) -> int:
        session = self.sessions[member]
        claim = Claim(session.group, session.id, limit, 1 << 20, self.now, Recent())
        claimed = claim.run(self.connection)
        assert claimed is not None
        self.held[member] += claimed.deliveries
        for key in _KEYS:
            holders = [
                held for held in self.held.values() if any(d.message.key == key for d in held)
            ]
            assert len(holders) <= 1, f"{len(holders)} members have {key!r} at once"
        return len(claimed.deliveries)

    def settle(self, member: int, *, delay: float | None) -> None:
        """Acknowledges the first that a member holds, or gives its whole lane back."""
        if not self.held[member]:
            return
        first, *rest = self.held[member]
        session, key = self.sessions[member], first.message.key
        assert key is not None
        lane = session.group.lane(key)
        assert lane is not None
        if delay is None:
            settling.acknowledge(self.connection, session.group, session.id, [first.receipt])
            settling.unblock(self.connection, session.group, {lane}, self.now)
            self.done.append((first.message.metadata["kind"], key, int(first.message.id)))
            self.held[member] = rest
            return
        due = self.now + delay if delay else 0.0
        given = [GivenBack(first.receipt, lane, due=due, failures=1)]
        behind = [each for each in rest if session.group.lane(each.message.key) == lane]
        given += [GivenBack(each.receipt, lane, uncounted=1) for each in behind]
        for item in given:
            settling.give_back(self.connection, session.group, session.id, item)
        settling.order_lanes(self.connection, session.group.id, {lane}, self.now)
        self.held[member] = [each for each in rest if each not in behind]

    def end(self, member: int) -> None:
        """The session of a member is over, and it begins another."""
        sessions.end(self.connection, self.sessions[member].id, self.now)
        self.join()
        self.sessions[member] = self.sessions.pop()
        self.held[member] = []

    def drain(self) -> None:
        """Everything that is left is handled, by whoever gets it."""
        for _ in range(10 * self.published + 10):
            self.now += _DAY
            for member in range(len(self.sessions)):
                self.claim(member, 3)
                while self.held[member]:
                    self.settle(member, delay=None)
            if len(self.done) == self.published:
                return
        raise AssertionError(f"{self.published - len(self.done)} messages stay unhandled")


@contextlib.contextmanager
def members(ordering: Ordering) -> Iterator[Members]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.prepare(connection)
        made = Members(connection, ordering)
        for _ in range(2):
            made.join()
        yield made


_STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(_KEYS), st.booleans()),
    st.tuples(st.just("claim"), st.integers(0, 1), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from([None, None, 0.0, 60.0])),
    st.tuples(st.just("end"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 70.0])),
)


@pytest.mark.parametrize("ordering", [Ordering.PER_KEY, Ordering.PER_PARTITION])
@given(steps=st.lists(_STEPS, min_size=10, max_size=60))
@example(  # the first of two free rows comes back later: the second waits behind it
    steps=[
        *[("publish", b"a", False)] * 2,
        ("claim", 0, 2),
        ("settle", 0, 0.0),
        ("claim", 0, 1),
        ("settle", 0, 60.0),
        ("claim", 0, 1),
        ("settle", 0, None),
    ]
)
@hypothesis_settings(max_examples=80, deadline=None)
def test_everything_is_handled_in_turn(ordering: Ordering, steps: list[tuple[object, ...]]) -> None:
    with members(ordering) as group:
        for step in steps:
            match step:
                case ("publish", bytes() as key, bool() as replayed):
                    group.publish(key, replayed=replayed)
                case ("claim", int() as member, int() as limit):
                    group.claim(member, limit)
                case ("settle", int() as member, (None | float()) as delay):
                    group.settle(member, delay=delay)
                case ("end", int() as member):
                    group.end(member)
                case ("wait", float() as seconds):
                    group.now += seconds
        group.drain()
        for kind in ("new", "replay"):
            for key in _KEYS:
                order = [number for k, of, number in group.done if (k, of) == (kind, key)]
                assert order == sorted(order)


def test_a_long_lane_is_put_in_order_from_its_start() -> None:
    """More rows than are unblocked at once wait before replays, one of which fails."""
    with members(Ordering.PER_KEY) as group:
        for _ in range(4):
            group.publish(b"a", replayed=True)
        group.claim(0, 1)
        for _ in range(200):
            group.publish(b"a", replayed=False)
        group.claim(1, 4)
        group.settle(0, delay=0.0)
        order = random.Random(1)
        while len(group.done) < group.published:
            member = order.randrange(2)
            group.claim(member, 3)
            group.settle(member, delay=None)
        for kind in ("new", "replay"):
            numbers = [number for k, _, number in group.done if k == kind]
            assert numbers == sorted(numbers)
