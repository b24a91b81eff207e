"""Sessions end while the connection lives, and owners move; no message may be lost."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from protoflow.contract.spec import Ordering
from protoflow.message import Settlement, SettleResult
from protoflow.testing.transports.harness import MEGABYTE, Member, TransportHarness, needs
from protoflow.transport import Subscription

COUNT, KEYS, AHEAD, ENDS = 40, 4, 6, 2
LEASE = 2.0
#: Settings with which members join an ordered group that may move.
MOVING: Final[dict[str, Any]] = {
    "ordering": Ordering.PER_KEY, "lease": LEASE, "rebalance_drain": 1.0,
}  # fmt: skip


class Ledger:
    """The messages that the members of a group received, and those that may arrive again.

    Attributes:
        seen: key and number of each delivery.
        unsettled: for each number, how many settlements did not reach the broker.
    """

    def __init__(self, harness: TransportHarness) -> None:
        self.seen: list[tuple[bytes, int]] = []
        self.unsettled: Counter[int] = Counter()
        self.last: Member | None = None
        self._harness = harness
        self._workers: list[asyncio.Task[None]] = []

    def add(self, member: Member) -> None:
        """Starts to handle messages with this member."""
        self._workers.append(asyncio.create_task(self._work(member)))

    async def _work(self, member: Member) -> None:
        while batch := await member.subscription.receive(1, MEGABYTE):
            (delivery,) = batch
            number = int(delivery.message.payload or b"")
            self.seen.append((delivery.message.key or b"", number))
            self.last = member
            result = SettleResult.UNKNOWN
            while result is SettleResult.UNKNOWN:
                await asyncio.sleep(0.005)
                (result,) = await member.subscription.settle([Settlement(delivery)])
            self.unsettled[number] += result is not SettleResult.DONE

    async def publish(self, topic: str) -> None:
        """Publishes numbers over several keys, at the pace at which they are handled."""
        for number in range(COUNT):
            while number - len({*self.seen}) > AHEAD:
                await asyncio.sleep(0.005)
            key = b"k%d" % (number % KEYS)
            await self._harness.publish(self._harness.message(topic, b"%d" % number, key=key))

    async def until(self, count: int) -> None:
        """Waits until this many numbers were received."""
        try:
            async with asyncio.timeout(30 * self._harness.target.patience):
                while len({*self.seen}) < count:
                    for worker in self._workers:
                        if worker.done():
                            # raises the worker's error; without one, the worker was stopped
                            worker.result()
                    await asyncio.sleep(0.005)
        except TimeoutError:
            missing = {*range(COUNT)} - {number for _, number in self.seen}
            raise AssertionError(f"not received: {sorted(missing)}") from None

    async def rest(self) -> None:
        """Waits until no message has arrived for a while."""
        seen = -1
        while seen < len(self.seen):
            seen = len(self.seen)
            await asyncio.sleep(0.3 * self._harness.target.patience)

    async def close(self) -> None:
        """Stops the members."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def check(self, *, ordered: bool) -> None:
        """Asserts that no number is lost or repeated after settlement, and that keys keep order."""
        times = Counter(number for _, number in self.seen)
        assert sorted(times) == list(range(COUNT))
        again = {number: seen for number, seen in times.items() if seen > 1}
        late = ENDS if self._harness.target.commits_later else 0
        assert all(n <= 1 + late + self.unsettled[number] for number, n in again.items()), again
        if ordered:
            lanes: dict[bytes, list[int]] = defaultdict(list)
            for key, number in dict.fromkeys(self.seen):
                lanes[key].append(number)
            assert lanes == {b"k%d" % key: [*range(key, COUNT, KEYS)] for key in range(KEYS)}


@asynccontextmanager
async def _ledger(harness: TransportHarness) -> AsyncIterator[Ledger]:
    ledger = Ledger(harness)
    try:
        yield ledger
    finally:
        await ledger.close()


def _ending(harness: TransportHarness) -> Callable[[Subscription], Awaitable[None]]:
    if harness.target.end_session is None:
        pytest.skip("capability: end_session")
    return harness.target.end_session


@needs("at_least_once")
async def test_a_session_that_ends_loses_nothing(harness: TransportHarness) -> None:
    end, topic, ordering = _ending(harness), harness.topic(), harness.strongest_order()
    member = await harness.join(topic, ordering=ordering, lease=LEASE)
    async with _ledger(harness) as ledger:
        ledger.add(member)
        publishing = asyncio.create_task(ledger.publish(topic))
        for count in range(10, COUNT, COUNT // ENDS):
            await ledger.until(count)
            await end(member.subscription)
        await publishing
        await ledger.until(COUNT)
        await ledger.rest()
    ledger.check(ordered=harness.capabilities.per_key)


@needs("at_least_once", "per_key")
async def test_an_owner_that_is_turned_out_moves_with_its_keys(harness: TransportHarness) -> None:
    end, topic = _ending(harness), harness.topic()
    async with _ledger(harness) as ledger:
        for _ in range(2):
            transport = await harness.connect()
            ledger.add(await harness.join(topic, transport=transport, **MOVING))
        publishing = asyncio.create_task(ledger.publish(topic))
        for count in range(10, COUNT, COUNT // ENDS):
            await ledger.until(count)
            assert ledger.last is not None
            await end(ledger.last.subscription)
        await publishing
        await ledger.until(COUNT)
    ledger.check(ordered=True)


@needs("at_least_once", "per_key")
async def test_owners_that_come_and_go_keep_the_order(harness: TransportHarness) -> None:
    topic = harness.topic()
    async with _ledger(harness) as ledger:
        old = await harness.join(topic, transport=await harness.connect(), **MOVING)
        ledger.add(old)
        publishing = asyncio.create_task(ledger.publish(topic))
        for count in range(10, COUNT, COUNT // ENDS):
            await ledger.until(count)
            new = await harness.join(topic, transport=await harness.connect(), **MOVING)
            ledger.add(new)
            await old.subscription.stop()
            old = new
        await publishing
        await ledger.until(COUNT)
    ledger.check(ordered=True)
