"""A blocked partition leaves room for the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from protoflow.clock import Clock
from protoflow.contract.spec import DeliveryPolicy, Ordering
from protoflow.message import Delivery, Message
from protoflow.scheduling.in_flight import InFlight
from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.partition_flow import PartitionFlow
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries

from tests.acceptance.harness import Harness, handler
from tests.acceptance.targets import TARGETS
from tests.brokers import url_or_skip

PARTITIONS = 4


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    url = url_or_skip("kafka")
    harness = Harness(TARGETS["kafka"], url, tmp_path)
    await harness.open()
    yield harness
    await harness.close()


async def keys_of_partitions(harness: Harness) -> list[str]:
    """A key for each partition, chosen as Kafka's clients do."""
    numbers = list(range(PARTITIONS))
    keys: dict[int, str] = {}
    for number in range(1000):
        key = f"k{number}"
        keys.setdefault(DefaultPartitioner()(key.encode(), numbers, numbers), key)
    return [keys[number] for number in numbers]


@pytest.mark.parametrize("blocked", [1, 3])
async def test_a_blocked_partition_holds_up_no_other(harness: Harness, blocked: int) -> None:
    keys = await keys_of_partitions(harness)
    gate = asyncio.Event()
    handled: Counter[str] = Counter()

    async def work(task: Any, context: Any) -> None:
        if task.key in keys[:blocked]:
            await gate.wait()
        handled[task.key] += 1

    count = 400
    policy = DeliveryPolicy(ordering=Ordering.PER_PARTITION)
    async with harness.running(
        handler("Work", work), policy=policy, transport_options={"partitions": PARTITIONS}
    ):
        for key in keys:  # of the blocked ones, more than the bound of messages in flight
            await harness.send(*range(count), key=key)
        await harness.until(lambda: all(handled[key] == count for key in keys[blocked:]), within=15)
        assert not any(handled[key] for key in keys[:blocked])
        gate.set()
        await harness.until(lambda: all(handled[key] == count for key in keys), within=15)


class Simulation:
    """A scheduler and a reader: what is blocked is held, everything else is settled in turn."""

    def __init__(self, settings: SubscriptionSettings, counts: list[int], size: int) -> None:
        wakeup = ReaderWakeup()
        self.partitions = [
            Partition(TopicPartition("orders", number), number, 0) for number in range(len(counts))
        ]
        share = FairShare(settings, {item.tp: item for item in self.partitions})
        self.ready = ReadyDeliveries(share, wakeup)
        self.flow_control = PartitionFlow(self.ready, Clock(), 10_000, wakeup)
        self.in_flight = InFlight(settings)
        self.held: list[Delivery] = []
        self.most = [0] * len(counts)
        for partition, count in zip(self.partitions, counts, strict=True):
            offsets = range(count)
            assert all(partition.admit(offset) for offset in offsets)
            self.flow_control.accept(
                partition, [delivery(partition, offset, size) for offset in offsets]
            )

    async def receive(self) -> None:
        """Takes messages for as long as there is room and something may be handed out."""
        while self.in_flight._has_room() and not self.ready.is_empty:
            count, size = await self.in_flight.room()
            receiving = asyncio.ensure_future(self.ready.get(count, size))
            await asyncio.sleep(0)
            if not receiving.done():  # every partition has its share
                receiving.cancel()
                return
            taken = receiving.result()
            assert len(taken) <= count
            self.in_flight.came(taken)
            self.held += taken
            for number, partition in enumerate(self.partitions):
                self.most[number] = max(self.most[number], partition.handed_out)

    def settle(self, settled: Delivery) -> None:
        self.held.remove(settled)
        partition: Partition = settled.receipt
        assert partition.finish(int(settled.position))
        self.in_flight.left(1, settled.size)
        if partition.resting:
            self.flow_control.throttle(partition)


def delivery(partition: Partition, offset: int, size: int) -> Delivery:
    message = Message(id=str(offset), topic="orders", payload=b"")
    return Delivery(
        message=message, shard=partition.shard, position=offset, size=size, receipt=partition
    )


@checked(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 8),
    st.integers(2, 10),
    st.sampled_from([1, 1000]),
)
def test_whatever_is_blocked_the_rest_is_handled(
    loads: list[tuple[int, bool]], concurrency: int, factor: int, size: int
) -> None:
    settings = SubscriptionSettings(
        name="orders/billing", topic="orders", group="billing", concurrency=concurrency,
        max_in_flight=max(4 * len(loads), factor * concurrency), max_in_flight_bytes=100_000,
    )  # fmt: skip
    blocked = {number for number, (_, is_blocked) in enumerate(loads) if is_blocked}

    async def consume() -> None:
        simulation = Simulation(settings, [count for count, _ in loads], size)
        while True:
            await simulation.receive()
            flowing = [item for item in simulation.held if item.shard not in blocked]
            if not flowing:
                break
            simulation.settle(flowing[0])
        for number, partition in enumerate(simulation.partitions):
            if number not in blocked:
                assert not partition.unsettled, "a partition that is not blocked is held up"

    asyncio.run(consume())


async def test_one_partition_alone_fills_the_bound_and_among_others_half_of_it() -> None:
    settings = SubscriptionSettings(name="t/g", topic="t", group="g", max_in_flight=256)
    alone = Simulation(settings, [500], 1)
    await alone.receive()
    assert alone.most == [256]
    among_others = Simulation(settings, [500, 0, 0], 1)
    await among_others.receive()
    assert among_others.most == [117, 0, 0]


@pytest.mark.parametrize("largest", [1, 5, 100])
@pytest.mark.parametrize("partitions", [1, 2, 3, 10, 100, 1000])
async def test_a_third_of_the_bound_fits_into_one_partition(partitions: int, largest: int) -> None:
    """So a batch fills with the messages of one partition; see `registrations.plan`."""
    settings = SubscriptionSettings(name="t/g", topic="t", group="g", max_in_flight=3 * largest)
    simulation = Simulation(settings, [2 * largest] + [0] * (partitions - 1), 1)
    await simulation.receive()
    assert simulation.most[0] >= largest


async def test_bounds_that_leave_no_room_for_others_keep_every_handler_busy() -> None:
    settings = SubscriptionSettings(
        name="t/g", topic="t", group="g", concurrency=8, max_in_flight=8
    )
    simulation = Simulation(settings, [20, 20], 1)
    await simulation.receive()
    assert sum(simulation.most) == 8
