"""Whatever becomes of commits: little is handed out while they are late, and nothing stays so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from protoflow.clock import Clock
from protoflow.message import Delivery, Message
from protoflow.testing import Listener
from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.commit_metadata import CommitMetadata
from protoflow.transports.kafka.commits import Commits
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup

MOST = 4
INTERVAL = 1.0
TIMEOUT = 15.0
TPS = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
ANSWERS = {"refused": KafkaError("as asked"), "moved": CommitFailedError(), "confirmed": None}


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time is set."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Broker:
    """Keeps commits until they are answered."""

    def __init__(self) -> None:
        self.places: dict[TopicPartition, tuple[int, str]] = {}
        self.open: list[tuple[dict[TopicPartition, Any], asyncio.Future[None]]] = []

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        future = asyncio.get_running_loop().create_future()
        self.open.append((offsets, future))
        await future

    def answer(self, error: Exception | None, *, arrived: bool) -> None:
        offsets, future = self.open.pop()  # aiokafka repeats: an older one may be placed last
        if future.done():
            return
        if error is None or arrived:
            for tp, place in offsets.items():
                assert place.offset >= self.places.get(tp, (0, ""))[0], "a commit went back"
                self.places[tp] = place.offset, place.metadata
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


async def _pass(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class LateCommits(RuleBasedStateMachine):
    """Two partitions of a subscription, and a broker that answers when it likes."""

    @initialize()
    def begin(self) -> None:
        self.loop = Loop()
        self.broker = Broker()
        self.handed: list[Delivery] = []
        self.count = 0
        self.late_at: int | None = None  # how many had been handed out when a commit became late
        context: Any = SimpleNamespace(
            settings=SimpleNamespace(clock=Clock()), options=KafkaOptions(), writer="w"
        )
        topics: Any = SimpleNamespace(
            rungs=(), shard=lambda _, number: number, hold=lambda _: 0.0, main="orders"
        )
        wanted = SubscriptionSettings(
            name="sink", topic="orders", group="sink", max_in_flight=MOST, concurrency=1
        )
        self.listener = Listener()
        self.consumption = Consumption(wanted, topics, self.listener, context, ReaderWakeup())
        self.partitions = self.consumption.partitions
        consumer: Any = self.broker
        self.commits = Commits(consumer, "w", TIMEOUT, INTERVAL)
        self.tasks = [self.loop.create_task(self.commits.run(self.partitions))]
        self.end = dict.fromkeys(TPS, 0)
        self.assign()

    def commit(self, partitions: list[Partition], answer: str, *, arrived: bool) -> bool:
        """Commits, with this answer to it and to what is before it; whether it succeeded."""
        task = self.loop.create_task(self.commits.commit(partitions))
        self.spin()
        while not task.done():
            self.broker.answer(ANSWERS[answer], arrived=arrived)
            self.spin()
        return task.exception() is None

    def spin(self) -> None:
        """Lets tasks go on as far as they can."""
        self.loop.run_until_complete(_pass(8))

    def assign(self) -> None:
        """New partitions, whose first commit is confirmed before anything is read of them."""
        fresh = []
        for tp in TPS:
            offset, metadata = self.broker.places.get(tp, (0, ""))
            fresh.append(self.consumption.make(tp, offset, CommitMetadata.decode(metadata, offset)))
        assert self.commit(fresh, "confirmed", arrived=True)
        self.partitions |= {partition.tp: partition for partition in fresh}

    @rule(tp=st.sampled_from(TPS), count=st.integers(1, 6))
    def read(self, tp: TopicPartition, count: int) -> None:
        partition = self.partitions[tp]
        found = []
        for offset in range(partition.position, partition.position + count):
            if partition.admit(offset):
                message = Message(id=str(offset), topic="orders", payload=b"x")
                delivery = Delivery(message=message, shard=tp.partition, position=offset)
                delivery.receipt, delivery.size = partition, 1
                found.append(delivery)
        self.consumption.flow_control.accept(partition, found)

    @rule(count=st.integers(1, 3))
    def hand_out(self, count: int) -> None:
        room = MOST - sum(not item.receipt.is_done(item.position) for item in self.handed)
        if room <= 0:
            return
        task = self.loop.create_task(self.consumption.ready.get(min(count, room), 1024))
        self.spin()
        if task.done():
            self.handed += task.result()
            self.count += len(task.result())
        else:
            task.cancel()
            self.spin()

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.finish(self.handed.pop(data.draw(st.integers(0, len(self.handed) - 1))))

    def finish(self, delivery: Any) -> None:
        """As a settlement does."""
        delivery.receipt.finish(delivery.position)
        self.consumption.flow_control.throttle(delivery.receipt)

    @rule(count=st.integers(1, 2 * MOST))
    def work(self, count: int) -> None:
        for _ in range(count):
            self.hand_out(1)
            while self.handed:
                self.finish(self.handed.pop())

    @rule(seconds=st.sampled_from([0.3, 1.1, 16.0]))
    def wait(self, seconds: float) -> None:
        self.loop.now += seconds
        self.spin()

    @rule(tp=st.sampled_from(TPS))
    def write_mark(self, tp: TopicPartition) -> None:
        task = self.loop.create_task(self.commits.commit([self.partitions[tp]]))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.tasks.append(task)
        self.spin()

    @precondition(lambda self: self.broker.open)
    @rule(answer=st.sampled_from(sorted(ANSWERS)), arrived=st.booleans())
    def answer(self, answer: str, arrived: bool) -> None:
        self.broker.answer(ANSWERS[answer], arrived=arrived)
        self.spin()

    @rule(answer=st.sampled_from(sorted(ANSWERS)), arrived=st.booleans())
    def rebalance(self, answer: str, arrived: bool) -> None:
        self.commit(list(self.partitions.values()), answer, arrived=arrived)
        for partition in self.partitions.values():
            partition.live = False
        self.partitions.clear()
        self.consumption.ready.clear()
        self.handed.clear()
        self.assign()

    @invariant()
    def little_is_handed_out(self) -> None:
        if not any(partition.late for partition in self.partitions.values()):
            self.late_at = None
        elif self.late_at is None:
            self.late_at = self.count
        else:
            assert self.count - self.late_at <= MOST

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            for _ in range(100):
                self.wait(16.0)
                while self.broker.open:
                    self.answer("confirmed", arrived=True)
                self.hand_out(3)
                while self.handed:
                    self.finish(self.handed.pop())
                if not any(item.unfinished or item.dirty for item in self.partitions.values()):
                    break
            for tp, partition in self.partitions.items():
                assert not partition.unfinished, "something was never handed out"
                assert self.broker.places[tp][0] == partition.position
            assert self.listener.healthy[-1:] != [False]
        finally:
            for task in self.tasks:
                task.cancel()
            self.spin()
            self.loop.close()


TestLateCommits = LateCommits.TestCase
TestLateCommits.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
