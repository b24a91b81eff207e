"""Whatever statement fails, and whether or not a failed commit was written: what is answered is
true, what is repeated is done once, and nothing stays held by nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult

from tests.transports.harness import Listener, make
from tests.transports.harness import settings as subscription_settings


class Faults:
    """When statements fail: after so many that did not, before or after they did their work."""

    def __init__(self) -> None:
        self.follow([])

    def follow(self, plan: list[tuple[int, bool]]) -> None:
        """From now on."""
        self._plan = list(reversed(plan))
        self._left, self._after = self._plan.pop() if self._plan else (-1, False)

    def hit(self) -> bool | None:
        """Whether this statement fails (True: after its work), or None."""
        if self._left < 0:
            return None
        if self._left:
            self._left -= 1
            return None
        after = self._after
        self._left, self._after = self._plan.pop() if self._plan else (-1, False)
        return after


class Flaky:
    """A connection whose statements fail as planned."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def execute(self, statement: str, *values: Any) -> Any:
        fault = self._faults.hit()
        if fault is False:
            raise sqlite3.OperationalError("disk I/O error")
        result = self._connection.execute(statement, *values)
        if fault is True:
            del result
            raise sqlite3.OperationalError("disk I/O error")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class World:
    """One consumer that repeats what it is not sure of, as the scheduler does."""

    def __init__(self, transport: Any, subscription: Any) -> None:
        self.transport = transport
        self.subscription = subscription
        self.held: list[Delivery] = []
        self.published: set[str] = set()
        self.done: list[str] = []
        self.outputs: list[str] = []
        self.number = 0

    async def publish(self, count: int) -> None:
        left = [
            Message(id=f"m{self.number + i}", topic="t", payload=b"x", key=b"k")
            for i in range(count)
        ]
        self.number += count
        self.published |= {message.id for message in left}
        while left:
            await asyncio.sleep(0)
            errors = await self.transport.submit(left)
            left = [each for each, error in zip(left, errors, strict=True) if error is not None]

    async def receive(self, count: int) -> None:
        receiving = asyncio.ensure_future(self.subscription.receive(count, 1 << 20))
        done, _ = await asyncio.wait([receiving], timeout=0.05)
        receiving.cancel()
        await asyncio.wait([receiving])
        if done:
            self.held += receiving.result()

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        left = list(settlements)
        while left:
            await asyncio.sleep(0)
            results: Sequence[SettleResult] = [SettleResult.UNKNOWN] * len(left)
            with suppress(TransportError):
                results = await self.subscription.settle(left)
            for settlement, result in zip(left, results, strict=True):
                assert result is not SettleResult.REFUSED
                if result is SettleResult.DONE and settlement.action is Action.ACK:
                    deliveries = [settlement.delivery, *settlement.others]
                    self.done += [each.message.id for each in deliveries]
                    self.outputs += [output.id for output in settlement.outputs]
            left = [
                each
                for each, result in zip(left, results, strict=True)
                if result is SettleResult.UNKNOWN
            ]

    async def acknowledge(self, count: int, *, together: bool) -> None:
        taken, self.held = self.held[:count], self.held[count:]
        if together and taken:
            output = Message(id=f"of {taken[0].message.id}", topic="out", payload=b"")
            await self.settle([Settlement(taken[0], outputs=[output], others=taken[1:])])
        else:
            await self.settle(
                [
                    Settlement(
                        each,
                        outputs=[Message(id=f"of {each.message.id}", topic="out", payload=b"")],
                    )
                    for each in taken
                ]
            )

    async def give_back(self, action: Action) -> None:
        taken, self.held = self.held, []
        await self.settle([Settlement(each, action, failures=1) for each in taken])

    async def mark(self) -> None:
        for delivery in self.held[:1]:
            with suppress(TransportError):
                await self.subscription.mark(delivery)
            while True:
                with suppress(TransportError):
                    await self.subscription.clear(delivery)
                    break


async def play(
    steps: list[tuple[str, int]], plan: list[tuple[int, bool]], ordering: Ordering, path: str
) -> None:
    transport = make(f"sqlite:///{path}/queue.db?synchronous=off")
    faults = Faults()
    connect: Callable[[], sqlite3.Connection] = transport._connect
    transport._connect = lambda: Flaky(connect(), faults)
    await transport.open()
    transport.worker._connect = transport._connect
    subscription = await transport.subscribe(subscription_settings(ordering=ordering), Listener())
    await transport.submit([Message(id="first", topic="out", payload=b"")])
    world = World(transport, subscription)
    faults.follow(plan)
    for step, count in steps:
        await {
            "publish": lambda: world.publish(count),  # noqa: B023  called at once
            "receive": lambda: world.receive(count),  # noqa: B023
            "ack": lambda: world.acknowledge(count, together=False),  # noqa: B023
            "batch": lambda: world.acknowledge(count, together=True),  # noqa: B023
            "nack": lambda: world.give_back(Action.NACK),
            "release": lambda: world.give_back(Action.RELEASE),
            "mark": world.mark,
        }[step]()
    faults.follow([])
    async with asyncio.timeout(20):
        while (await transport.lag("t", "g")).messages:
            await world.receive(100)
            await world.acknowledge(100, together=False)
    assert {*world.done} == world.published
    out = await transport.subscribe(subscription_settings("out"), Listener())
    waiting = (await transport.lag("out", "g")).messages
    found: list[str] = []
    while len(found) < waiting:
        found += [each.message.id for each in await out.receive(1000, 1 << 20)]
    await transport.close()
    counts = Counter(found)
    assert counts == Counter(["first", *world.outputs]), "outputs are there once, as answered"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["publish", "publish", "receive", "receive", "ack", "batch", "nack", "release", "mark"]
        ),
        st.integers(1, 4),
    ),
    min_size=3,
    max_size=14,
)
PLAN = st.lists(st.tuples(st.integers(0, 25), st.booleans()), min_size=1, max_size=6)


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # what waits for real is not shrunk
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=STEPS, plan=PLAN, ordering=st.sampled_from([Ordering.NONE, Ordering.PER_KEY]))
def test_a_failing_statement_loses_and_repeats_nothing(
    steps: list[tuple[str, int]], plan: list[tuple[int, bool]], ordering: Ordering
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(steps, plan, ordering, directory))
