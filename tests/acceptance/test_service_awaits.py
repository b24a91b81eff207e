"""Each `await` that a message comes by fails once, before and after: nobody loses anything.

The places are found by running: what is come by while messages are published, handled and
settled. None is listed by hand, so a new one has its case as soon as it is written.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.errors import PublishError
from protoflow.service import Service

from tests.acceptance.awaits import Places, awaits_of
from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, Seen, Watcher, handler, method, tasks

needs = pytest.mark.needs
pytestmark = [needs("durable", "at_least_once"), pytest.mark.timeout(240)]

_PACKAGES = {"jetstream": "nats"}
ROUND = 6


class Trial:
    """A service that is never restarted, and what came of its messages."""

    def __init__(self, harness: Harness, places: Places, watcher: Watcher) -> None:
        self.harness = harness
        self.places = places
        self.watcher = watcher
        self.seen = Seen(harness)
        self.sent = 0

    async def work(self, task: Any, context: Any) -> Any:
        self.seen.note(task, context)
        return pb.Done(number=task.number, key=task.key)

    async def round(self, within: float) -> str | None:
        """Some messages, to their end; what is wrong."""
        numbers = range(self.sent, self.sent + ROUND)
        self.sent += ROUND
        left = list(numbers)
        deadline = asyncio.get_running_loop().time() + within
        for number in left:
            task = pb.Task(number=number, key=f"k{number % 2}")
            while True:  # as a producer does who wants it sent
                try:
                    await self.harness.producer.publish_task(task, id=f"t{number}")
                    break
                except PublishError:
                    if asyncio.get_running_loop().time() > deadline:
                        return f"publishing {number} fails"
                    await asyncio.sleep(0.05)
        while not set(numbers) <= set(tasks(self.watcher.messages)):
            if asyncio.get_running_loop().time() > deadline:
                missing = sorted(set(numbers) - set(tasks(self.watcher.messages)))
                return f"no outputs of {missing}"
            await asyncio.sleep(0.01)
        return None


def _wrong(trial: Trial, service: Service) -> str | None:
    health = service.health()
    stats = service.stats()[method("Transform")]
    if not health.live:
        return "the service died"
    if stats.failed_runs or stats.dead_lettered:
        return f"{stats.failed_runs} failed runs, {stats.dead_lettered} dead letters"
    ids: dict[int, set[str]] = {}
    for message in trial.watcher.messages:
        ids.setdefault(pb.Done.FromString(message.payload or b"").number, set()).add(message.id)
    twice = [number for number, found in ids.items() if len(found) > 1]
    return f"outputs with several ids: {twice}" if twice else None


async def _rest(harness: Harness, service: Service) -> str | None:
    deadline = asyncio.get_running_loop().time() + 15 * harness.patience
    while not all(one.settled for one in service.subscriptions) or not service.health().ready:
        if asyncio.get_running_loop().time() > deadline:
            counts = [one.in_flight.count for one in service.subscriptions]
            return f"it does not come to rest: {counts} in flight, {service.health().problems}"
        await asyncio.sleep(0.02)
    return None


def _settings(harness: Harness) -> dict[str, Any]:
    """On Kafka progress is committed so often that each round comes by that."""
    if harness.target.name != "kafka":
        return {}
    return {"transport_options": {**harness.target.options, "commit_interval": 0.05}}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_failure_at_any_await_loses_nothing(harness: Harness, after: bool) -> None:
    ordering = Ordering.PER_KEY if harness.capabilities.per_key else Ordering.NONE
    policy = DeliveryPolicy(ordering=ordering, retry=RetryPolicy(max_attempts=2))
    await _fails_everywhere(harness, policy, after=after)


@needs("atomic_on_demand")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_failure_at_any_await_of_a_transaction_loses_nothing(
    harness: Harness, after: bool
) -> None:
    policy = DeliveryPolicy(atomic=True, retry=RetryPolicy(max_attempts=2))
    await _fails_everywhere(harness, policy, after=after)


async def _fails_everywhere(harness: Harness, policy: DeliveryPolicy, *, after: bool) -> None:
    package = f"protoflow.transports.{_PACKAGES.get(harness.target.name, harness.target.name)}"
    assert importlib.util.find_spec(package) is not None
    watcher = await harness.watch("done")
    wrongs: list[str] = []
    with awaits_of(package) as places:
        trial = Trial(harness, places, watcher)
        work = handler("Transform", trial.work)
        async with harness.running(work, policy=policy, **_settings(harness)) as service:
            assert await trial.round(20 * harness.patience) is None
            places.hits.clear()
            assert await trial.round(20 * harness.patience) is None
            found = places.able_to_fail
            for place in found:
                places.arm(place, after=after)
                wrong = await trial.round(15 * harness.patience)
                places.disarm()
                if not places.fired:
                    continue
                wrong = wrong or await _rest(harness, service) or _wrong(trial, service)
                if wrong is not None:
                    wrongs.append(f"{place}: {wrong}")
                    break
    assert not wrongs, "\n".join(wrongs)
