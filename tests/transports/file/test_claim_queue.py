"""Claims of several members: each message is handled, a lane by one member at a time, in order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering
from protoflow.transports.file.claim_queue import ClaimQueue
from protoflow.transports.file.group_state import GroupState

NAMES = ("a", "b", "c")


@dataclass
class Member:
    """A process with its own copy of the state, as the journal gives it."""

    name: str
    ordering: Ordering
    journal: list[Any]
    state: GroupState = field(default_factory=GroupState)
    seen: int = 0

    def __post_init__(self) -> None:
        self.queue = ClaimQueue(self.ordering, self.name)

    def look(self) -> GroupState:
        self.state.replay(self.journal[self.seen :])
        self.seen = len(self.journal)
        return self.state

    def write(self) -> None:
        self.journal += self.state.taken_changes()
        self.seen = len(self.journal)

    def restart(self) -> None:
        self.state, self.seen = GroupState(), 0


class Model:
    """Members that claim, settle, give back, die and start again, at random."""

    def __init__(self, ordering: Ordering, seed: int) -> None:
        self.random = random.Random(seed)
        self.ordering = ordering
        self.journal: list[Any] = []
        self.members = [Member(name, ordering, self.journal) for name in NAMES]
        self.held: dict[int, str] = {}
        self.done: list[int] = []
        self.now = 0.0

    def lane(self, entry: Any) -> object:
        if self.ordering is Ordering.PER_PARTITION:
            return "all"
        return entry.lane if self.ordering is Ordering.PER_KEY else 0

    def read(self, member: Member, state: GroupState) -> None:
        position = state.cursor
        due = self.now + self.random.choice([0, 0, 0, 3])
        lane = self.random.randrange(4)
        state.change("read", position + 1, position + 1, 0.0, [(position, lane, due)])

    def claim(self, member: Member, state: GroupState) -> None:
        entry = member.queue.next(state, self.now)
        if entry is None:
            return
        assert entry.position not in self.held
        assert entry.due <= self.now
        if lane := self.lane(entry):
            others = [each for each in state.entries.values() if self.lane(each) == lane]
            for other in others:
                if other.position < entry.position:
                    assert self.held.get(other.position) == member.name
                else:
                    assert other.position not in self.held
        state.claim(member.name, entry.position)
        self.held[entry.position] = member.name

    def settle(self, member: Member, state: GroupState) -> None:
        mine = [position for position, holder in self.held.items() if holder == member.name]
        if not mine:
            return
        position = self.random.choice(mine)
        del self.held[position]
        if self.random.random() < 0.7:
            state.change("ack", [position])
            self.done.append(position)
        else:
            due = self.random.choice([0.0, self.now + 2])
            state.change("back", position, due, 1, 1, 0.0)

    def die(self, member: Member, state: GroupState) -> None:
        state.change("gone", member.name)
        self.held = {each: who for each, who in self.held.items() if who != member.name}

    def step(self) -> None:
        self.now += 0.1
        member = self.random.choice(self.members)
        actions = [self.read] * 6 + [self.claim] * 8 + [self.settle] * 6 + [self.die]
        self.random.choice(actions)(member, member.look())
        member.write()
        if not self.random.randrange(30):
            member.restart()

    def finish(self) -> None:
        for _ in range(3000):
            self.now += 1
            member = self.random.choice(self.members)
            if not member.look().entries:
                return
            self.random.choice([self.claim, self.settle])(member, member.state)
            member.write()


@pytest.mark.parametrize("ordering", Ordering)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_members_keep_the_order_and_handle_everything(ordering: Ordering, seed: int) -> None:
    model = Model(ordering, seed)
    for _ in range(200):
        model.step()
    model.finish()
    assert sorted(model.done) == [*range(model.members[0].look().cursor)]
