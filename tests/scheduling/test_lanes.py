"""Lanes: in turn within, side by side without, nobody forgotten; batches gather in lanes."""

from __future__ import annotations

from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message
from protoflow.scheduling.arrival import Arrival
from protoflow.scheduling.job import Job
from protoflow.scheduling.lanes import Lanes

SINGLE: Any = SimpleNamespace(gatherer=None)
BATCHED: Any = SimpleNamespace(gatherer=object())


def job(number: int, lane: int, route: Any) -> Job:
    message = Message(id=str(number), topic="t", payload=b"", key=b"%d" % lane)
    return Job(Delivery(message=message, position=number), message, route, lane)


class Model:
    """The scheduler's part of lanes, with batches of at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.lanes = Lanes()
        self.limit = limit
        self.ready: deque[list[Job]] = deque()
        self.gathered: list[Job] = []
        self.running: list[list[Job]] = []
        self.finished: dict[Any, list[int]] = defaultdict(list)

    def arrive(self, one: Job) -> None:
        if self.lanes.enter(one):
            self.begin(one)

    def begin(self, one: Job) -> None:
        if one.route is SINGLE or one.single:
            self.ready.append([one])
            return
        self.gathered.append(one)
        if len(self.gathered) >= self.limit:
            self.flush()

    def flush(self) -> None:
        if self.gathered:
            batch, self.gathered = self.gathered, []
            self.lanes.close(batch)
            self.ready.append(batch)

    def start(self) -> None:
        if self.ready:
            self.running.append(self.ready.popleft())
        lanes = [lane for batch in self.running for lane in {one.lane for one in batch}]
        assert len(lanes) == len(set(lanes)), "one lane runs twice at once"

    def finish(self, index: int) -> None:
        for one in self.running.pop(index % len(self.running)):
            self.finished[one.lane].append(int(one.message.id))
            self.leave(one)

    def leave(self, one: Job) -> None:
        follower = self.lanes.leave(one)
        while follower is not None:
            self.begin(follower)
            follower = self.lanes.follow(follower) if follower.route.gatherer else None

    def break_up(self, index: int) -> None:
        """A batch fails as a whole: its messages are handled one by one."""
        turns: set[Any] = set()
        back = []
        for one in self.running.pop(index % len(self.running)):
            one.single = True
            if one.lane in turns:
                back.append(one)
            else:
                turns.add(one.lane)
                self.begin(one)
        self.lanes.take_back(back)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 2), st.sampled_from([SINGLE, BATCHED])),
        st.tuples(st.sampled_from(["start", "flush"])),
        st.tuples(st.sampled_from(["finish", "break"]), st.integers(0, 5)),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 4))
def test_every_job_of_a_lane_ends_in_its_turn(script: list[tuple[Any, ...]], limit: int) -> None:
    model = Model(limit)
    arrived: dict[int, list[int]] = defaultdict(list)
    number = 0
    for step in script:
        if step[0] == "arrive":
            model.arrive(job(number, step[1], step[2]))
            arrived[step[1]].append(number)
            number += 1
        elif step[0] == "start":
            model.start()
        elif step[0] == "flush":
            model.flush()
        elif model.running:
            (model.finish if step[0] == "finish" else model.break_up)(step[1])
    for _ in range(10 * number + 10):
        model.flush()
        model.start()
        if model.running:
            model.finish(0)
    assert {lane: numbers for lane, numbers in model.finished.items() if numbers} == arrived
    assert len(model.lanes) == 0, "a lane exists while it has a job, and no longer"


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_what_is_dropped_leaves_the_others_their_turn(items: list[tuple[int, bool]]) -> None:
    lanes = Lanes()
    begun: deque[Job] = deque()
    unwanted: set[Job] = set()
    kept: dict[int, list[int]] = defaultdict(list)
    for number, (lane, wanted) in enumerate(items):
        one = job(number, lane, SINGLE)
        if lanes.enter(one):
            begun.append(one)
            kept[lane].append(number)
        elif wanted:
            kept[lane].append(number)
        else:
            unwanted.add(one)
    dropped = lanes.drop(lambda one: one in unwanted)
    assert set(dropped) == unwanted
    assert all(one.lane is None for one in dropped)
    ended: dict[Any, list[int]] = defaultdict(list)
    while begun:
        one = begun.popleft()
        ended[one.lane].append(int(one.message.id))
        if (follower := lanes.leave(one)) is not None:
            begun.append(follower)
    assert ended == kept
    assert len(lanes) == 0


@pytest.mark.parametrize(("key", "at_once"), [(None, 2), (b"", 2), (b"k", 1)])
def test_an_empty_key_is_no_key(key: bytes | None, at_once: int) -> None:
    started: list[Job] = []
    route: Any = SimpleNamespace(gatherer=None, suspect_at=100)
    router: Any = SimpleNamespace(by_type={"a.B": route})
    settings: Any = SimpleNamespace(ordering=Ordering.PER_KEY, group="g", name="t/g", source=None)
    workers: Any = SimpleNamespace(put=started.append)
    nothing: Any = None  # no outcome is applied, and no job is checked
    arrival = Arrival(router, Lanes(), settings, nothing, workers, nothing)
    metadata = {wire.CE_TYPE: "a.B", wire.CONTENT_TYPE: wire.PROTOBUF}
    for id in "12":
        message = Message(id=id, topic="t", payload=b"", key=key, metadata=metadata)
        arrival.accept(Delivery(message=message, deliveries=1))
    assert len(started) == at_once
