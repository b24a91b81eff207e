"""A model of delivery, and a state machine that compares transports with it.

Whatever happens, every message of a group is at each moment pending, held by one member,
or done; the order of each key holds; and in the end everything is done or dead.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from protoflow import transports
from protoflow.clock import Clock
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.testing import Listener
from protoflow.transport import (
    Isolation,
    LagReader,
    Subscription,
    SubscriptionSettings,
    Transport,
    TransportSettings,
)
from protoflow.transports.memory import MemoryTransport
from protoflow.transports.sqlite import SqliteTransport

T = TypeVar("T")

TOPIC, GROUP, DEAD = "t", "g", "t..g..dead"
#: Longer than any run of the model: keepers renew in real time, of which hardly any passes.
LEASE = 10_000.0
EPSILON = 0.001


ACTIONS = (
    *["publish"] * 3,
    *["receive"] * 6,
    *["acknowledge"] * 4,
    *["fail"] * 4,
    *["time"] * 2,
    *("release", "stale", "restart", "power cut", "counts"),
    *("batch", "mark", "clear"),
)


class ManualClock(Clock):
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Item:
    """What the model knows of a message that is not done."""

    order: int
    id: str
    lane: bytes | None
    due: float
    deliveries: int = 0
    failures: int = 0
    first_failure: float = 0.0
    mark: int = 0
    holder: int | None = None
    delivery: Delivery | None = None


@dataclass
class Member:
    transport: Transport
    subscription: Subscription
    listener: Listener
    held: list[Item] = field(default_factory=list)


class DeliveryModel(RuleBasedStateMachine):
    url = ""
    ordering = Ordering.NONE
    hard_crash = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.items: dict[str, Item] = {}
        self.dead: set[str] = set()
        self.stale: list[tuple[int, Delivery, Action | None]] = []
        self.numbers = itertools.count()
        self.members: list[Member] = []
        self.vanished: list[Transport] = []

    def run(self, awaitable: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(20):
                return await awaitable()

        return self.loop.run_until_complete(bounded())

    async def join(self) -> Member:
        url = self.url.format(directory=self.directory)
        transport = transports.create(
            TransportSettings(url=TransportURL.parse(url), clock=self.clock)
        )
        await transport.open()
        listener = Listener()
        subscription = await transport.subscribe(
            SubscriptionSettings(
                name="model",
                topic=TOPIC,
                group=GROUP,
                ordering=self.ordering,
                dead_letter_topics=(DEAD,),
                lease=LEASE,
            ),
            listener,
        )
        return Member(transport, subscription, listener)

    @initialize()
    def start(self) -> None:
        self.members = [self.run(self.join), self.run(self.join)]

    # What the model says.

    def lane(self, key: bytes | None) -> bytes | None:
        if self.ordering is Ordering.NONE:
            return None
        return b"" if self.ordering is Ordering.PER_PARTITION else key

    def may_go(self, item: Item, member: int) -> bool:
        """Whether the item may be handed to the member."""
        if item.holder is not None or item.due > self.clock.time:
            return False
        if item.lane is None:
            return True
        mates = [mate for mate in self.items.values() if mate.lane == item.lane]
        return all(
            mate.holder == member if mate.order < item.order else mate.holder in (None, member)
            for mate in mates
            if mate is not item
        )

    def must_go(self, item: Item) -> bool:
        """Whether a member that asks has to get it: no other of its lane is held."""
        return self.may_go(item, -1)

    def something_must_go(self) -> bool:
        return any(self.must_go(item) for item in self.items.values())

    def somebody_holds(self) -> bool:
        return any(member.held for member in self.members)

    # What happens.

    @rule(
        action=st.sampled_from(ACTIONS),
        by=st.integers(0, 1),
        index=st.integers(0, 9),
        count=st.integers(1, 4),
        seconds=st.sampled_from([0.0, 3.0, 6.0]),
        max_bytes=st.sampled_from([10**6, 10**6, 100]),
        flag=st.booleans(),
    )
    def step(
        self,
        action: str,
        by: int,
        index: int,
        count: int,
        seconds: float,
        max_bytes: int,
        flag: bool,
    ) -> None:
        """One rule for everything, because hypothesis leaves out whole rules at random."""
        if action == "publish":
            self.publish(
                by,
                [(b"a", b"a", b"b", None)[(index + i) % 4] for i in range(count)],
                seconds if flag else 0.0,
            )
        elif action == "acknowledge" and self.somebody_holds():
            self.acknowledge(index, dead=flag)
        elif action == "batch" and self.somebody_holds():
            self.acknowledge_together(index, count)
        elif action in ("mark", "clear") and self.somebody_holds():
            self.isolate(index, action)
        elif action == "fail" and self.somebody_holds():
            self.fail(index, seconds)
        elif action == "release" and self.somebody_holds():
            self.release_everything()
        elif action == "stale" and self.stale:
            self.settle_what_is_not_held(index, flag)
        elif action == "time":
            self.clock.time += seconds
        elif action == "restart":
            self.restart(by)
        elif action == "power cut" and self.hard_crash:
            self.power_cut()
        elif action == "counts":
            self.check_counts()
        elif self.something_must_go():
            self.receive(by, count, max_bytes)
        elif self.items:
            self.look_for_what_must_not_come(by, count)

    def publish(self, by: int, keys: list[bytes | None], delay: float) -> None:
        messages = []
        for key in keys:
            number = next(self.numbers)
            message = Message(id=f"m{number}", topic=TOPIC, payload=b"x", key=key, delay=delay)
            messages.append(message)
            due = self.clock.time + delay if delay else 0.0
            self.items[message.id] = Item(number, message.id, self.lane(key), due)
        transport = self.members[by].transport

        async def submit() -> None:
            assert list(await transport.submit(messages)) == [None] * len(messages)

        self.run(submit)

    def receive(self, by: int, count: int, max_bytes: int) -> None:
        member = self.members[by]
        batch = self.run(lambda: member.subscription.receive(count, max_bytes))
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(delivery.size for delivery in batch) <= max_bytes
        self.took(by, batch)

    def look_for_what_must_not_come(self, by: int, count: int) -> None:
        subscription: Any = self.members[by].subscription

        async def look() -> Sequence[Delivery]:
            receiving = asyncio.ensure_future(subscription.receive(count, 10**6))
            while not receiving.done() and not subscription.waiting:
                await asyncio.sleep(0)
            if receiving.done():
                batch: Sequence[Delivery] = receiving.result()
                return batch
            receiving.cancel()
            await asyncio.wait([receiving])
            return ()

        self.took(by, self.run(look))

    def took(self, by: int, batch: Sequence[Delivery]) -> None:
        member = self.members[by]
        for delivery in batch:
            item = self.items[delivery.message.id]
            assert self.may_go(item, by), f"{item.id} is not for {by} now"
            item.holder, item.delivery = by, delivery
            item.deliveries += 1
            member.held.append(item)
            assert delivery.deliveries == item.deliveries
            assert delivery.failures == item.failures
            assert delivery.suspect == (item.mark > 0)
            assert delivery.first_failure == pytest.approx(item.first_failure, abs=EPSILON)

    def settle(self, by: int, settlements: list[Settlement]) -> list[SettleResult]:
        subscription = self.members[by].subscription

        async def settle() -> list[SettleResult]:
            return list(await subscription.settle(settlements))

        return self.run(settle)

    def choose(self, index: int) -> tuple[int, Item, list[Item]]:
        """A holder, the first item it holds of some lane, and its later ones of the lane."""
        everything = [(by, item) for by, member in enumerate(self.members) for item in member.held]
        by, item = everything[index % len(everything)]
        if item.lane is None:
            return by, item, []
        held = self.members[by].held
        first, *later = sorted(
            (mate for mate in held if mate.lane == item.lane), key=lambda mate: mate.order
        )
        return by, first, later

    def forget(self, by: int, item: Item, action: Action | None) -> Delivery:
        delivery = item.delivery
        assert delivery is not None
        self.members[by].held.remove(item)
        self.stale.append((by, delivery, action))
        item.holder = item.delivery = None
        return delivery

    def acknowledge(self, index: int, dead: bool) -> None:
        by, item, _ = self.choose(index)
        delivery = self.forget(by, item, Action.ACK)
        del self.items[item.id]
        outputs = []
        if dead:
            outputs.append(Message(id=item.id, topic=DEAD, payload=b"x"))
            self.dead.add(item.id)
        assert self.settle(by, [Settlement(delivery, outputs=outputs)]) == [SettleResult.DONE]

    def acknowledge_together(self, index: int, count: int) -> None:
        """Some in one settlement, oldest first, with an output for the dead-letter topic."""
        by, item, _ = self.choose(index)
        held = sorted(self.members[by].held, key=lambda mate: mate.order)
        items = [item, *(mate for mate in held if mate.lane is None and mate is not item)][:count]
        for each in items:
            del self.items[each.id]
        first, *others = [self.forget(by, each, Action.ACK) for each in items]
        output = Message(id=f"{item.id} and others", topic=DEAD, payload=b"x")
        self.dead.add(output.id)
        settlement = Settlement(first, outputs=[output], others=others)
        assert self.settle(by, [settlement]) == [SettleResult.DONE]

    def isolate(self, index: int, action: str) -> None:
        by, item, _ = self.choose(index)
        delivery, subscription = item.delivery, self.members[by].subscription
        assert delivery is not None
        assert isinstance(subscription, Isolation)
        assert self.run(lambda: subscription.isolate(delivery)) == (delivery, item.mark)
        if action == "mark":
            self.run(lambda: subscription.mark(delivery))
            item.mark += 1
        else:
            self.run(lambda: subscription.clear(delivery))
            item.mark = 0

    def fail(self, index: int, delay: float) -> None:
        by, item, later = self.choose(index)
        item.failures += 1
        item.first_failure = item.first_failure or self.clock.time
        item.due = self.clock.time + delay if delay else 0.0
        item.mark = 0
        settlements = [
            Settlement(
                self.forget(by, item, Action.NACK),
                Action.NACK,
                delay=delay,
                failures=item.failures,
                first_failure=item.first_failure,
            ),
            *(self.released(by, mate) for mate in later),
        ]
        assert set(self.settle(by, settlements)) == {SettleResult.DONE}

    def released(self, by: int, item: Item) -> Settlement:
        item.deliveries -= 1
        item.due = 0.0
        item.mark = 0
        return Settlement(
            self.forget(by, item, Action.RELEASE),
            Action.RELEASE,
            failures=item.failures,
            first_failure=item.first_failure,
        )

    def release_everything(self) -> None:
        for by, member in enumerate(self.members):
            if held := list(member.held):
                results = self.settle(by, [self.released(by, item) for item in held])
                assert set(results) == {SettleResult.DONE}

    def settle_what_is_not_held(self, index: int, output: bool) -> None:
        """What was acknowledged is answered as before; whatever else was settled is lost."""
        by, delivery, action = self.stale[index % len(self.stale)]
        outputs = [Message(id="never", topic=TOPIC, payload=b"x")] if output else []
        expected = SettleResult.DONE if action is Action.ACK else SettleResult.LOST
        assert self.settle(by, [Settlement(delivery, outputs=outputs)]) == [expected]

    def restart(self, by: int) -> None:
        member = self.members[by]
        for item in list(member.held):
            item.due = 0.0
            item.mark = 0  # the end of a process that lives is no proof
            self.forget(by, item, None)
        self.stale = [each for each in self.stale if each[0] != by]
        self.run(member.transport.close)
        self.members[by] = self.run(self.join)

    def power_cut(self) -> None:
        """All members vanish without a word; their leases end."""
        for by, member in enumerate(self.members):
            self.vanished.append(member.transport)
            for item in list(member.held):
                item.due = 0.0
                self.forget(by, item, None)
            if isinstance(member.transport, MemoryTransport):
                member.transport.vanish()
        self.stale.clear()
        self.clock.time += LEASE + 1
        self.members = [self.run(self.join), self.run(self.join)]
        for member in self.members:
            if isinstance(member.transport, SqliteTransport):
                self.run(member.transport.end_expired)

    def check_counts(self) -> None:
        transport = self.members[0].transport
        assert isinstance(transport, LagReader)
        dead_letters = dead_letters_of(transport)
        assert self.run(lambda: transport.lag(TOPIC, GROUP)).messages == len(self.items)
        assert self.run(lambda: dead_letters.count(DEAD)) == len(self.dead)

    def teardown(self) -> None:
        try:
            if self.members:
                self.finish()
        finally:
            for transport in [*self.vanished, *(member.transport for member in self.members)]:
                self.run(transport.close)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.directory)

    def finish(self) -> None:
        self.release_everything()
        self.clock.time += 100.0
        for _ in range(10_000):
            if not self.items:
                break
            self.receive(0, 5, 10**6)
            assert self.members[0].held, "something is left and does not come"
            while self.members[0].held:
                self.acknowledge(0, dead=False)
        self.check_counts()
        for member in self.members:
            assert (member.listener.health, member.listener.revoked) == ([], [])
