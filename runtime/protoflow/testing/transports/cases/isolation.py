"""Start marks: only the message that ran alone when its process died is marked."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from protoflow.contract.spec import Ordering
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.testing.transports.harness import Member, TransportHarness, needs, numbers, payloads
from protoflow.testing.transports.processes import program_environment
from protoflow.transport import Isolation, Transport

#: The lease in seconds, after which messages of a killed process are redelivered.
LEASE = 2.0


@pytest.fixture(params=["NONE", "PER_KEY"])
def ordering(request: pytest.FixtureRequest, harness: TransportHarness) -> Ordering:
    """Runs a case for both orderings: brokers may store marks of ordered groups elsewhere."""
    if request.param == "PER_KEY" and not harness.capabilities.per_key:
        pytest.skip("capability: per_key")
    return Ordering[request.param]


async def killed(harness: TransportHarness, topic: str, ordering: Ordering, *steps: str) -> None:
    """Kills a process after it received the first message and did these steps with it."""
    if harness.target.crash is not None:
        await _crashed(harness, harness.target.crash, topic, ordering, *steps)
        return
    settings = harness.settings(topic, ordering=ordering, lease=LEASE)
    fields = ("name", "topic", "group", "lease", "dead_letter_topics")
    order = {
        "url": harness.target.url,
        "options": {**harness.target.options, **harness.target.crash_options},
        "settings": {
            **{name: getattr(settings, name) for name in fields},
            "ordering": ordering.value,
        },
        "steps": steps,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "protoflow.testing.transports.killed_member", json.dumps(order),
        env=program_environment(),
    )  # fmt: skip
    async with asyncio.timeout(20 * harness.target.patience):
        assert await process.wait() == -signal.SIGKILL


async def _crashed(
    harness: TransportHarness,
    crash: Callable[[Transport], object],
    topic: str,
    ordering: Ordering,
    *steps: str,
) -> None:
    """Does the same on a transport that stores everything in the memory of one process."""
    transport = await harness.connect()
    member = await harness.join(topic, transport=transport, ordering=ordering, lease=LEASE)
    (delivery,) = await member.take(1)
    for step in steps:
        await getattr(isolation(member), step)(delivery)
    crash(transport)


def isolation(member: Member) -> Isolation:
    assert isinstance(member.subscription, Isolation)
    return member.subscription


async def alone(
    harness: TransportHarness, topic: str, ordering: Ordering, payload: bytes
) -> tuple[Member, Delivery, int]:
    """Returns a new member, the message that it must run alone, and the message's start marks."""
    member = await harness.join(topic, ordering=ordering, lease=LEASE)
    delivery, marks = await member.isolated()
    assert delivery.message.payload == payload
    return member, delivery, marks


@needs("proves_killers")
async def test_a_start_mark_survives_the_process(
    harness: TransportHarness, ordering: Ordering
) -> None:
    topic = harness.topic()
    await harness.join(topic, ordering=ordering, lease=LEASE)
    await harness.reopen()
    await harness.send(topic, b"killer", key=b"k")
    await killed(harness, topic, ordering, "isolate", "mark")
    member, delivery, marks = await alone(harness, topic, ordering, b"killer")
    assert marks == 1
    await isolation(member).clear(delivery)
    await member.ack(delivery)
    await member.nothing()


@needs("proves_killers")
async def test_a_message_that_kills_twice_has_two_marks(
    harness: TransportHarness, ordering: Ordering
) -> None:
    topic = harness.topic()
    await harness.join(topic, ordering=ordering, lease=LEASE)
    await harness.reopen()
    await harness.send(topic, b"killer", key=b"k")
    for _ in range(2):
        await killed(harness, topic, ordering, "isolate", "mark")
    member, delivery, marks = await alone(harness, topic, ordering, b"killer")
    assert marks == 2
    await member.ack(delivery)
    await member.nothing()


@needs("proves_killers")
async def test_a_mark_that_was_cleared_is_gone(
    harness: TransportHarness, ordering: Ordering
) -> None:
    topic = harness.topic()
    await harness.join(topic, ordering=ordering, lease=LEASE)
    await harness.reopen()
    await harness.send(topic, b"long", key=b"k")
    await killed(harness, topic, ordering, "isolate", "mark", "clear")
    member, delivery, marks = await alone(harness, topic, ordering, b"long")
    assert marks == 0
    await member.ack(delivery)


@needs("proves_killers")
async def test_what_was_only_handed_out_has_no_mark(
    harness: TransportHarness, ordering: Ordering
) -> None:
    topic = harness.topic()
    await harness.join(topic, ordering=ordering, lease=LEASE)
    await harness.reopen()
    await harness.send(topic, b"innocent", key=b"k")
    for _ in range(3):
        await killed(harness, topic, ordering)
    member, delivery, marks = await alone(harness, topic, ordering, b"innocent")
    assert marks == 0
    await member.ack(delivery)


@needs("proves_killers")
async def test_a_mark_is_of_one_message(harness: TransportHarness, ordering: Ordering) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=ordering)
    await harness.send(topic, *numbers(0, 3))
    deliveries = await member.take(3)
    first, marks = await member.isolated(deliveries[0])
    assert marks == 0
    await isolation(member).mark(first)
    await isolation(member).clear(first)
    await member.ack(first)
    for delivery in deliveries[1:]:
        other, marks = await member.isolated(delivery)
        assert marks == 0
        await member.ack(other)
    await member.nothing()


@needs("proves_killers")
@pytest.mark.parametrize("action", [Action.NACK, Action.RELEASE])
async def test_what_comes_again_after_an_end_has_no_mark(
    harness: TransportHarness, ordering: Ordering, action: Action
) -> None:
    """The scheduler clears the mark before it settles."""
    topic = harness.topic()
    member = await harness.join(topic, ordering=ordering)
    await harness.send(topic, b"x", key=b"k")
    (delivery,) = await member.take(1)
    for failures in (1, 2):
        delivery, marks = await member.isolated(delivery)
        assert marks == 0
        await isolation(member).mark(delivery)
        await isolation(member).clear(delivery)
        settlement = Settlement(delivery, action, failures=failures, first_failure=1.7e9)
        assert await member.settle(settlement) == [SettleResult.DONE]
        (delivery,) = await member.take(1)
        assert payloads([delivery]) == [b"x"]
        assert not delivery.suspect
    await member.ack(delivery)
    await member.nothing()


@needs("proves_killers")
async def test_clearing_twice_is_clearing_once(
    harness: TransportHarness, ordering: Ordering
) -> None:
    topic = harness.topic()
    member = await harness.join(topic, ordering=ordering)
    await harness.send(topic, b"x", key=b"k")
    (delivery,) = await member.take(1)
    delivery, _ = await member.isolated(delivery)
    await isolation(member).clear(delivery)
    await isolation(member).mark(delivery)
    await isolation(member).clear(delivery)
    await isolation(member).clear(delivery)
    await member.ack(delivery)
    await member.nothing()


@needs("proves_killers")
@pytest.mark.parametrize("first", ["clear", "settle"])
async def test_clearing_beside_the_settlement_brings_nothing_back(
    harness: TransportHarness, ordering: Ordering, first: str
) -> None:
    """The scheduler dead-letters a proved killer, so its mark is cleared while it is settled."""
    topic = harness.topic()
    member = await harness.join(topic, ordering=ordering)
    await harness.send(topic, b"killer", key=b"k")
    (delivery,) = await member.take(1)
    delivery, _ = await member.isolated(delivery)
    await isolation(member).mark(delivery)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "clear": lambda: isolation(member).clear(delivery),
        "settle": lambda: member.settle(Settlement(delivery)),
    }
    begun = asyncio.ensure_future(steps.pop(first)())
    for _ in range(3):
        await asyncio.sleep(0)
    (other,) = steps.values()
    await asyncio.gather(begun, other())
    await member.subscription.stop()
    member = await harness.join(topic, ordering=ordering)
    await member.nothing()
    assert await isolation(member).isolate(None) is None
