"""A deploy changes something while work is under way: it is handled, or the start is refused and
says how to drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from protoflow.contract.spec import DeliveryPolicy, Encoding, Ordering, RetryPolicy
from protoflow.errors import ProtoflowError
from protoflow.outcomes import RetryAfter

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, Seen, handler, method

needs = pytest.mark.needs
pytestmark = [needs("durable", "at_least_once", "dead_letters"), pytest.mark.timeout(180)]

#: How a refusal names the way out.
_DRAINING = (
    "drain",
    "settle its messages",
    "settle what they have",
    "handle its messages",
    "process its queues",
)
#: What is fixed when it is made: drained, it has to be deleted or changed by hand.
_FIXED = (
    *("more shards", "fewer shards", "more shards of a keyed topic"),
    *("more partitions", "more partitions of a keyed topic", "other partitions for retries"),
)

WAITING, BACKLOG = 6, 4


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """What a service is started with."""

    ordering: Ordering = Ordering.NONE
    attempts: int = 5
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> DeliveryPolicy:
        retry = RetryPolicy(
            max_attempts=self.attempts, initial_backoff=0.01, max_backoff=0.02, jitter=0.0
        )
        return DeliveryPolicy(ordering=self.ordering, retry=retry)

    def arguments(self, harness: Harness) -> dict[str, Any]:
        common = {"retry_in_place": 0.2, "retry_ladder": (1.0, 2.0), "lease": 5.0}
        return {
            "policy": self.policy,
            "transport_options": {**harness.target.options, **self.options},
            **common,
            **self.settings,
        }


_PLAIN = Deploy()
_KEYED = Deploy(ordering=Ordering.PER_KEY)
#: The change: from, to, and the transports that have the setting; none is all.
CHANGES: dict[str, tuple[Deploy, Deploy, tuple[str, ...]]] = {
    "nothing": (_PLAIN, _PLAIN, ()),
    "another ladder": (_PLAIN, Deploy(settings={"retry_ladder": (1.5, 4.0)}), ()),
    "a shorter ladder": (_PLAIN, Deploy(settings={"retry_ladder": (2.0,)}), ()),
    "a longer ladder": (_PLAIN, Deploy(settings={"retry_ladder": (0.5, 1.0, 2.0, 60.0)}), ()),
    "ordering": (_PLAIN, _KEYED, ()),
    "no ordering": (_KEYED, _PLAIN, ()),
    "order in a partition": (_PLAIN, Deploy(ordering=Ordering.PER_PARTITION), ()),
    "fewer attempts": (_PLAIN, Deploy(attempts=1), ()),
    "more attempts": (Deploy(attempts=2), _PLAIN, ()),
    "retries in memory": (_PLAIN, Deploy(settings={"retry_in_place": 30.0}), ()),
    "encoding": (_PLAIN, Deploy(settings={"encoding": Encoding.JSON}), ()),
    "structured mode": (_PLAIN, Deploy(settings={"structured": True}), ()),
    "a shorter lease": (_PLAIN, Deploy(settings={"lease": 2.0, "max_hold": 100.0}), ()),
    "fewer in flight": (_PLAIN, Deploy(settings={"max_in_flight": 1}), ()),
    "more partitions": (
        Deploy(options={"partitions": 1}), Deploy(options={"partitions": 3}), ("kafka",),
    ),
    "more partitions of a keyed topic": (
        Deploy(ordering=Ordering.PER_KEY, options={"partitions": 1}),
        Deploy(ordering=Ordering.PER_KEY, options={"partitions": 3}), ("kafka",),
    ),
    "fewer partitions": (
        Deploy(options={"partitions": 3}), Deploy(options={"partitions": 1}), ("kafka",),
    ),
    "other partitions for retries": (
        Deploy(options={"retry_partitions": 1}), Deploy(options={"retry_partitions": 2}),
        ("kafka",),
    ),
    "more shards": (_PLAIN, Deploy(options={"shards": 2}), ("rabbitmq", "jetstream", "redis")),
    "fewer shards": (Deploy(options={"shards": 2}), _PLAIN, ("rabbitmq", "jetstream", "redis")),
    "more shards of a keyed topic": (
        _KEYED, Deploy(ordering=Ordering.PER_KEY, options={"shards": 2}),
        ("rabbitmq", "jetstream", "redis"),
    ),
}  # fmt: skip


def _ordered(deploy: Deploy, harness: Harness) -> bool:
    """Whether this transport has the order that is asked for."""
    if deploy.ordering is Ordering.PER_KEY:
        return harness.capabilities.per_key
    return deploy.ordering is Ordering.NONE or harness.capabilities.per_partition


class Work:
    """The handler: the first run of what is to wait asks for a wait that the broker keeps."""

    def __init__(self, harness: Harness) -> None:
        self.seen = Seen(harness)
        self.waits = True

    async def __call__(self, task: Any, context: Any) -> None:
        self.seen.note(task, context)
        if self.waits and context.attempt == 1:
            raise RetryAfter(1.5)
        self.seen.done.append(task.number)


@pytest.mark.parametrize("change", list(CHANGES))
async def test_work_under_way_survives_a_change(harness: Harness, change: str) -> None:
    before, after, only = CHANGES[change]
    if only and harness.target.name not in only:
        pytest.skip(f"capability: {harness.target.name} has no such setting")
    if not _ordered(before, harness) or not _ordered(after, harness):
        pytest.skip("capability: per_key")
    work = Work(harness)
    every = set(range(WAITING + BACKLOG))
    async with harness.running(handler("Work", work), **before.arguments(harness)) as service:
        producer = pf.SuiteEventProducer(service)
        for number in range(WAITING):
            await producer.publish_task(pb.Task(number=number, key=f"k{number % 3}"))
        # Of an ordered key only the first runs; the others wait behind it.
        await work.seen.until(WAITING if before.ordering is Ordering.NONE else 1)
        await harness.quiet(0.1)
        service.pause(method("Work"))
        for number in range(WAITING, WAITING + BACKLOG):
            await producer.publish_task(pb.Task(number=number, key=f"k{number % 3}"))
    work.waits = False
    if not await _handles(harness, work, after, every):
        assert await _handles(harness, work, before, every), "the way to drain is none"
        drained = change in _FIXED or await _handles(harness, work, after, set())
        assert drained, "refused though drained"
    assert await harness.dead_letters.count(harness.dead_letter_topic()) == 0
    assert len(work.seen.done) == len(every), "handled twice"


async def _handles(harness: Harness, work: Work, deploy: Deploy, numbers: set[int]) -> bool:
    """Whether a service starts; then it handles all of these. Refused, it says how to drain."""
    service = harness.service(handler("Work", work), **deploy.arguments(harness))
    try:
        await service.start()
    except ProtoflowError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        reported = any(words in refusal.lower() for words in _DRAINING)
        assert reported, f"refused without the way out: {refusal}"
        return False
    try:
        await harness.until(
            lambda: numbers <= set(work.seen.done), within=15,
            what=f"stranded: {sorted(numbers - set(work.seen.done))}",
        )  # fmt: skip
        await harness.settled(service)
        assert service.health().ready, service.health().problems
    finally:
        await service.stop()
    return True


async def test_several_topics_of_one_group_join_before_anything_runs(harness: Harness) -> None:
    """The subscriptions of a service never push each other's runs out."""
    harness.require("groups", "at_least_once")
    topics = ("notes", "memos", "lists", "cards")
    runs: list[str] = []
    cancelled: list[str] = []

    async def work(value: Any, context: Any) -> None:
        runs.append(value["n"])
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            cancelled.append(value["n"])
            raise

    def make() -> Any:
        service = harness.service(handler("Work", Seen(harness).ok), rebalance_drain=2.0)
        for topic in topics:
            service.register_json_handler(topic, topic, work, group="together")
        return service

    async with make():
        pass
    for topic in topics:
        for number in range(4):
            payload = f'{{"n": "{topic}{number}"}}'.encode()
            metadata = {"content-type": "application/json"}
            await harness.publish(topic, payload, key=b"%d" % number, metadata=metadata)
    async with make() as service:
        await harness.until(lambda: len(set(runs)) == 4 * len(topics))
        await harness.settled(service)
    assert not cancelled, f"its own subscriptions cancelled {len(cancelled)} of {len(runs)} runs"
    assert len(runs) == 4 * len(topics)
