"""queue_subscription: a whole subscription over a broker that fails in every way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from protoflow.clock import Clock
from protoflow.contract.spec import Ordering
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionSettings
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription, queue_subscription

from tests.transport.kit import Listener
from tests.transport.kit.virtual import virtual_time

LEASE = 30.0
DONE, LOST, UNKNOWN = SettleResult.DONE, SettleResult.LOST, SettleResult.UNKNOWN


@dataclass
class Row:
    """A message of the broker: free from `due` on, or held under a token until `until`."""

    number: int
    due: float = 0.0
    token: int = 0
    until: float = 0.0
    failures: int = 0
    deliveries: int = 0
    size: int = 1
    key: bytes | None = None


class Broker:
    """A queue with leases. `fails` is what happens to the next call of each kind: the call is
    refused (`before`), or done and its answer lost (`after`)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[int, Row] = {}
        self.done: list[int] = []
        self.fails: dict[str, str] = {}
        self.calls: list[str] = []
        self.renewals: list[int] = []
        self._token = 0

    def publish(self, *numbers: int, key: bytes | None = None, size: int = 1) -> None:
        """Adds messages."""
        for number in numbers:
            self.rows[number] = Row(number, key=key, size=size)

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Claims what is free."""
        async with self._call("fetch"):
            now = self.clock.monotonic()
            found: list[Delivery] = []
            for row in self.rows.values():
                if row.due > now or (row.token and row.until > now):
                    continue
                if len(found) == max_messages or (found and max_bytes < row.size):
                    break
                max_bytes -= row.size
                self._token += 1
                row.token, row.until = self._token, now + LEASE
                row.deliveries += 1
                message = Message(id=str(row.number), topic="orders", payload=b"", key=row.key)
                found.append(
                    Delivery(
                        message=message,
                        failures=row.failures,
                        deliveries=row.deliveries,
                        position=row.number,
                        size=row.size,
                        receipt=(row.number, row.token),
                    )
                )
            return found

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        """Settles what is held under its token."""
        async with self._call("settle"):
            return [self._settle(settlement) for settlement in settlements]

    def _settle(self, settlement: Settlement) -> SettleResult:
        number, token = settlement.delivery.receipt
        now = self.clock.monotonic()
        row = self.rows.get(number)
        if row is None or row.token != token or row.until <= now:
            return LOST
        if settlement.action is Action.ACK:
            del self.rows[number]
            self.done.append(number)
        else:
            row.token = 0
            row.due = now + settlement.delay
            row.failures = settlement.failures
            row.deliveries -= settlement.action is Action.RELEASE
        return DONE

    async def renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        """Extends leases."""
        async with self._call("renew"):
            now = self.clock.monotonic()
            self.renewals.append(len(deliveries))
            lost = []
            for delivery in deliveries:
                number, token = delivery.receipt
                row = self.rows.get(number)
                if row is None or row.token != token or row.until <= now:
                    lost.append(delivery)
                else:
                    row.until = now + LEASE
            return lost

    def expire(self) -> None:
        """Ends every lease, as after a long sleep of the machine."""
        for row in self.rows.values():
            row.until = 0.0

    @contextlib.asynccontextmanager
    async def _call(self, kind: str) -> Any:
        self.calls.append(kind)
        await asyncio.sleep(0.01)
        failure = self.fails.pop(kind, "")
        if failure == "before":
            raise TransportError(f"{kind} failed")
        if failure == "bug":
            raise ZeroDivisionError(kind)
        yield
        if failure == "after":
            raise TransportError(f"the answer to {kind} was lost")


class Case:
    """A broker, a listener and a subscription."""

    def __init__(self, clock: Clock, **changes: Any) -> None:
        self.clock = clock
        self.broker = Broker(clock)
        self.listener = Listener()
        self.subscription = self.subscribe(**changes)

    def subscribe(
        self, ordering: Ordering = Ordering.NONE, max_hold: float = 3600.0, **options: Any
    ) -> QueueSubscription:
        """A subscription of the same group."""
        broker = self.broker
        functions = {"fetch": broker.fetch, "settle": broker.settle, "renew": broker.renew}
        settings = SubscriptionSettings(
            name="orders/billing",
            topic="orders",
            group="billing",
            lease=LEASE,
            ordering=ordering,
            max_hold=max_hold,
            max_in_flight=20,
        )
        source = QueueSource(**functions | options)
        return queue_subscription(source, settings, self.listener, self.clock)

    async def receive(self, count: int = 10) -> Sequence[Delivery]:
        """What comes within a minute; nothing else."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60.0):
                return await self.subscription.receive(count, 1000)
        return ()


def run(test: Any, **changes: Any) -> None:
    """Runs a test in virtual time."""

    async def body() -> None:
        with virtual_time() as clock:
            case = Case(clock, **changes)
            try:
                await test(case)
            finally:
                case.broker.fails.clear()
                await case.subscription.close()

    asyncio.run(body())


STEP = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 5)),
    st.tuples(st.just("receive"), st.integers(1, 6)),
    st.tuples(st.just("cancelled receive"), st.integers(0, 3)),
    st.tuples(st.just("settle"), st.sampled_from(list(Action))),
    st.tuples(st.just("settle late"), st.sampled_from(list(Action))),
    st.tuples(st.just("wait"), st.sampled_from([0.005, 1.0, 15.0, 45.0])),
    st.tuples(st.just("fail"), st.sampled_from(
        [f"{kind} {when}" for kind in ("fetch", "settle", "renew")
         for when in ("before", "after", "bug")])),
    st.tuples(st.just("expire"), st.none()),
    st.tuples(st.just("pause"), st.none()),
    st.tuples(st.just("resume"), st.none()),
)  # fmt: skip


@settings(deadline=None)
@given(steps=st.lists(STEP, max_size=25))
@example(steps=[("fail", "fetch before"), ("cancelled receive", 3)])
def test_every_message_is_handled_whatever_fails(steps: list[tuple[str, Any]]) -> None:
    async def body(case: Case) -> None:
        broker, subscription = case.broker, case.subscription
        in_hand: list[Delivery] = []
        settled: list[Delivery] = []
        published = 0

        async def settle(deliveries: Sequence[Delivery], action: Action) -> None:
            settlements = [Settlement(each, action, failures=each.failures) for each in deliveries]
            try:
                results = await subscription.settle(settlements)
            except TransportError:
                results = [UNKNOWN] * len(settlements)
            for delivery, result in zip(deliveries, results, strict=True):
                if result is UNKNOWN:
                    assert subscription.leases.holds(delivery)
                    continue
                in_hand.remove(delivery)
                if result is DONE:
                    settled.append(delivery)
                    assert delivery.receipt is action
                    if action is Action.ACK:
                        assert int(delivery.position) in broker.done

        for step, value in steps:
            if step == "publish":
                broker.publish(*range(published, published + value))
                published += value
            elif step == "receive":
                in_hand += await case.receive(value)
            elif step == "cancelled receive":
                receiving = asyncio.create_task(subscription.receive(5, 100))
                await asyncio.sleep(value * 0.005)
                receiving.cancel()
                found = (await asyncio.gather(receiving, return_exceptions=True))[0]
                in_hand += [] if isinstance(found, BaseException) else found
            elif step == "settle" and in_hand:
                await settle(in_hand[:3], value)
            elif step == "settle late" and settled:
                late = settled[-1]
                [answer] = await subscription.settle([Settlement(late, value)])
                assert answer is (DONE if value is late.receipt else LOST)
            elif step == "wait":
                await asyncio.sleep(value)
            elif step == "fail":
                kind, when = value.split()
                broker.fails[kind] = when
            elif step == "expire":
                broker.expire()
            elif step == "pause":
                subscription.pause([0])
            elif step == "resume":
                subscription.resume([0])
            for lost in case.listener.lost:
                assert not subscription.leases.holds(lost)
            in_hand = [each for each in in_hand if each not in case.listener.lost]
            assert len(subscription.leases) <= 40

        subscription.resume([0])
        broker.fails.clear()
        for _ in range(100):
            if in_hand:
                await settle([*in_hand], Action.ACK)
            in_hand = [each for each in in_hand if each not in case.listener.lost]
            if not broker.rows and subscription.health.healthy:
                break  # only a fetch that succeeds ends the report of one that failed
            in_hand += await case.receive()
        assert sorted(broker.done) == [*range(published)]
        await asyncio.sleep(LEASE)  # a sweep gives back what could not be given back
        await subscription.stop()
        assert not subscription.leases.held
        assert await subscription.receive(1, 1) == ()
        health = [healthy for healthy, _ in case.listener.health]
        assert health == [index % 2 == 1 for index in range(len(health))]
        assert subscription.health.healthy

    run(body)


def test_a_cancelled_receive_keeps_what_it_claimed() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2)
        receiving = asyncio.create_task(case.subscription.receive(10, 100))
        await asyncio.sleep(0.005)
        receiving.cancel()
        await asyncio.sleep(0.02)
        assert case.broker.calls == ["fetch"]
        assert [each.position for each in await case.receive()] == [1, 2]
        assert case.broker.calls == ["fetch"]

    run(body)


def test_stop_gives_back_what_was_not_handed_out() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2, 3)
        receiving = asyncio.create_task(case.subscription.receive(3, 100))
        await asyncio.sleep(0.005)
        receiving.cancel()
        [first] = await case.receive(1)
        await case.subscription.stop()
        assert [row.token > 0 for row in case.broker.rows.values()] == [True, False, False]
        assert [row.deliveries for row in case.broker.rows.values()] == [1, 0, 0]
        assert await case.subscription.settle([Settlement(first)]) == [DONE]

    run(body)


def test_stop_waits_for_the_fetch_that_runs_and_gives_back_what_it_claimed() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2)
        receiving = asyncio.create_task(case.subscription.receive(2, 100))
        await asyncio.sleep(0.005)
        receiving.cancel()
        await case.subscription.stop()
        assert [row.token for row in case.broker.rows.values()] == [0, 0]

    run(body)


def test_leases_are_renewed_until_they_are_settled_even_after_stop() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1)
        [delivery] = await case.receive()
        await asyncio.sleep(LEASE * 3)
        await case.subscription.stop()
        await asyncio.sleep(LEASE * 3)
        assert await case.subscription.settle([Settlement(delivery)]) == [DONE]
        renewals = len(case.broker.renewals)
        await asyncio.sleep(LEASE * 3)
        assert len(case.broker.renewals) == renewals
        assert case.listener.lost == []

    run(body)


def test_a_lease_that_cannot_be_renewed_is_lost_in_time() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1)
        [delivery] = await case.receive()
        start = case.clock.monotonic()
        while not case.listener.lost:
            case.broker.fails["renew"] = "before"
            await asyncio.sleep(1.0)
        assert case.listener.lost == [delivery]
        assert LEASE - 1 <= case.clock.monotonic() - start <= LEASE * 4 / 3 + 1
        assert await case.subscription.settle([Settlement(delivery)]) == [LOST]

    run(body)


def test_what_the_broker_took_away_is_reported() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1)
        [delivery] = await case.receive()
        case.broker.expire()
        await asyncio.sleep(LEASE / 2)
        assert case.listener.lost == [delivery]

    run(body)


def test_what_is_held_for_too_long_is_given_back_with_what_follows_its_key() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, key=b"a")
        [first] = await case.receive()
        await asyncio.sleep(LEASE)
        case.broker.publish(2, key=b"a")
        case.broker.publish(3, key=b"b")
        second, third = await case.receive()
        while not case.listener.lost:
            await asyncio.sleep(1.0)
        assert case.listener.lost == [first, second]
        await asyncio.sleep(1.0)
        assert [row.token > 0 for row in case.broker.rows.values()] == [False, False, True]
        assert [row.deliveries for row in case.broker.rows.values()] == [0, 0, 1]
        assert await case.subscription.settle([Settlement(third)]) == [DONE]

    run(body, ordering=Ordering.PER_KEY, max_hold=2 * LEASE)


def test_what_follows_the_key_of_a_lost_lease_is_given_back_lest_it_overtakes() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, key=b"a")
        [first] = await case.receive()
        start = case.clock.monotonic()
        while case.clock.monotonic() < start + LEASE * 0.9:
            case.broker.fails["renew"] = "before"
            await asyncio.sleep(1.0)
        case.broker.publish(2, key=b"a")
        case.broker.publish(3, key=b"b")
        second, third = await case.receive()
        while not case.listener.lost:
            case.broker.fails["renew"] = "before"
            await asyncio.sleep(1.0)
        assert case.listener.lost == [first, second]
        await asyncio.sleep(1.0)
        assert await case.subscription.settle([Settlement(second)]) == [LOST]
        assert await case.subscription.settle([Settlement(third)]) == [DONE]

    run(body, ordering=Ordering.PER_KEY)


def test_what_is_fetched_does_not_overtake_a_lease_that_ended_here_first() -> None:
    async def late(_deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        await asyncio.sleep(4.0)  # so that it looks at the leases at 10, 24 and 38 s
        raise TransportError("no lease was renewed")

    async def body(case: Case) -> None:
        await asyncio.sleep(5.5)
        case.broker.publish(1, key=b"a")
        await case.receive()
        await asyncio.sleep(4.4)
        case.broker.publish(2, key=b"b")  # for the table it is as old as the first
        await case.receive()
        while not case.listener.lost:
            await asyncio.sleep(0.1)
        assert case.broker.rows[2].until > case.clock.monotonic()
        case.broker.publish(3, key=b"b")
        received: list[int] = []
        while 3 not in received:
            received += [int(each.position) for each in await case.receive()]
        assert received.index(2) < received.index(3)

    run(body, ordering=Ordering.PER_KEY, renew=late)


def test_a_broker_that_fails_is_reported_and_asked_again() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1)
        case.broker.fails["fetch"] = "before"
        assert len(await case.receive()) == 1
        assert case.listener.health == [(False, "fetch failed [PF301]"), (True, "")]

    run(body)


def test_an_empty_queue_is_asked_again_after_poll_or_wake() -> None:
    async def body(case: Case) -> None:
        receiving = asyncio.create_task(case.receive())
        await asyncio.sleep(9.0)
        assert case.broker.calls.count("fetch") == 2
        case.broker.publish(1)
        case.subscription.wake()
        await asyncio.sleep(0.1)
        assert len(await receiving) == 1

    run(body, poll=5.0)


def test_nothing_is_claimed_while_all_shards_are_paused() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1)
        case.subscription.pause([0])
        assert await case.receive() == ()
        assert "fetch" not in case.broker.calls
        assert await case.subscription.available() == 0
        case.subscription.resume([0])
        assert len(await case.receive()) == 1
        assert await case.subscription.available() is None

    run(body)


def test_what_is_given_back_at_the_end_is_free_at_once() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2)
        await case.receive(1)
        await case.subscription.close()
        assert [row.token for row in case.broker.rows.values()] == [0, 0]

    run(body)


def test_a_lost_session_takes_everything_with_it() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2)
        first, second = await case.receive()
        settling = asyncio.ensure_future(_result(case.subscription.settle([Settlement(first)])))
        case.broker.fails["settle"] = "before"
        await asyncio.sleep(0.001)
        assert case.subscription.receipts() == {first.receipt, second.receipt}
        case.subscription.lose()
        assert case.listener.lost == [second]
        assert await settling == [LOST]

    run(body)


def test_two_subscriptions_of_a_group_share_the_messages() -> None:
    async def body(case: Case) -> None:
        case.broker.publish(1, 2)
        other = case.subscribe()
        [first] = await case.receive(1)
        [second] = await other.receive(10, 100)
        assert {first.position, second.position} == {1, 2}
        assert await case.subscription.settle([Settlement(second)]) == [LOST]
        await other.close()

    run(body)


def _result(future: asyncio.Future[Any]) -> Coroutine[Any, Any, Any]:
    async def wait() -> Any:
        return await future

    return wait()
