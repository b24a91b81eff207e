"""A service against random successes, failures, crashes and refused outputs: whatever happens,
every published message ends handled, skipped or dead-lettered, and keys keep their order."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from protoflow import transports
from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.config.url import TransportURL
from protoflow.connection import transport_for
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.outcomes import RetryAfter, Skip, Unprocessable
from protoflow.service import Service
from protoflow.testing import VirtualClock, VirtualTime
from protoflow.transport import TransportSettings

from tests.acceptance.faulty import Faulty

TOPIC, GROUP, OUT = "tasks", "workers", "done"
DEAD = f"{TOPIC}..{GROUP}..dead"

#: What a run may come to.
RUNS = ("ok", "ok", "ok", "fail", "fail", "retry-later", "slow", "output", "skip", "give-up")


@dataclass(frozen=True)
class Story:
    """What is to happen.

    Attributes:
        runs: for each message its key and what its runs come to; then they are ok.
        crashes: after so many runs of one service its transport is cut off.
        refusals: how many publications of outputs and dead letters are refused.
        ordering: of the subscription.
        concurrency: of the subscription.
    """

    runs: list[tuple[int, list[str]]]
    crashes: list[int]
    refusals: int
    ordering: Ordering
    concurrency: int


stories = st.builds(
    Story,
    runs=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.sampled_from(RUNS), max_size=4)), max_size=12
    ),
    crashes=st.lists(st.integers(1, 12), max_size=3),
    refusals=st.integers(0, 4),
    ordering=st.sampled_from(Ordering),
    concurrency=st.integers(1, 4),
)


@dataclass
class World:
    """What has happened."""

    story: Story
    ended: list[tuple[str, str]] = field(default_factory=list)
    attempts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    running: set[Any] = field(default_factory=set)
    refusals: int = 0
    service: Service | None = None

    @property
    def total(self) -> int:
        """How many runs there have been."""
        return sum(map(len, self.attempts.values()))

    @property
    def idle(self) -> bool:
        """Whether the service has nothing in flight, after something happened."""
        assert self.service is not None
        settled = all(scheduler.settled for scheduler in self.service.subscriptions)
        return settled and bool(self.attempts or not self.story.runs)

    async def handle(self, message: Message, context: Any) -> Any:
        id = message.id
        lane = {
            Ordering.NONE: None, Ordering.PER_KEY: message.key, Ordering.PER_PARTITION: "",
        }[self.story.ordering]  # fmt: skip
        assert lane is None or lane not in self.running, "two of one lane at once"
        self.running.add(lane)
        try:
            return await self._run(id, context)
        finally:
            self.running.discard(lane)

    async def _run(self, id: str, context: Any) -> Any:
        script = self.story.runs[int(id)][1]
        done = len(self.attempts[id])
        self.attempts[id].append(context.attempt)
        run = script[done] if done < len(script) else "ok"
        if run == "fail":
            raise ValueError(run)
        if run == "retry-later":
            raise RetryAfter(20.0)
        if run == "slow":
            await asyncio.sleep(0.2)
        if run == "skip":
            self.ended.append((id, run))
            raise Skip
        if run == "give-up":
            raise Unprocessable(run)
        self.ended.append((id, "ok"))
        return Message(id=f"{id}-out", topic=OUT, payload=b"") if run == "output" else None

    def refuse(self, message: Message) -> PublishError | None:
        if message.topic in (OUT, DEAD) and self.refusals < self.story.refusals:
            self.refusals += 1
            return PublishError("says the story")
        return None


def service_of(world: World, url: str, clock: Clock) -> Service:
    config = Config(
        environ={}, transport=url, lease=1.0, shutdown_timeout=0.0, retry_in_place=5.0,
        handle_signals=False,
    )  # fmt: skip
    faulty = Faulty(transport_for(config, clock))
    faulty.rule = world.refuse
    service = Service(config, transport=faulty, clock=clock)
    policy = DeliveryPolicy(
        ordering=world.story.ordering,
        concurrency=world.story.concurrency,
        retry=RetryPolicy(max_attempts=3, initial_backoff=0.1, max_backoff=0.4),
    )
    service.register_message_handler(GROUP, TOPIC, world.handle, delivery=policy)
    world.service = service
    return service


async def play(story: Story, url: str, clock: Clock, *, patience: float) -> None:
    """Publishes, runs services that crash and one that does not, and looks at the end."""
    world = World(story)
    reader = transports.create(TransportSettings(url=TransportURL.parse(url), clock=clock))
    await reader.open()
    service = service_of(world, url, clock)
    await service.start()
    await service.publish(
        *(
            Message(id=str(number), topic=TOPIC, payload=b"", key=b"k%d" % key)
            for number, (key, _) in enumerate(story.runs)
        )
    )
    for runs in story.crashes:
        limit = world.total + runs
        await until(lambda: world.total >= limit or world.idle, patience)  # noqa: B023
        await service.transport.close()  # whatever was unsettled comes again
        await service.stop()
        world.running.clear()
        service = service_of(world, url, clock)
        await service.start()
    dead_letters: set[str] = set()

    async def finished() -> bool:
        found = await dead_letters_of(reader).list(DEAD, limit=1000)
        dead_letters.update(dead_letter.message.id for dead_letter in found)
        everything = {str(number) for number in range(len(story.runs))}
        return everything <= dead_letters | {id for id, _ in world.ended} and world.idle

    deadline = asyncio.get_running_loop().time() + patience
    while not await finished():
        assert asyncio.get_running_loop().time() < deadline, "something is left"
        await asyncio.sleep(0.05)
    await service.stop()
    await reader.close()
    in_order(world)
    if not story.crashes:
        for id, attempts in world.attempts.items():
            assert attempts == list(range(1, len(attempts) + 1)), (id, attempts)
            assert len(attempts) <= 3


def in_order(world: World) -> None:
    """The first ends of each lane are in the order of publication. With refused outputs a run
    that ended well is redone, so only first ends count."""
    if world.story.ordering is Ordering.NONE:
        return
    lanes: dict[int, list[int]] = defaultdict(list)
    for id in dict.fromkeys(id for id, _ in world.ended):
        key = world.story.runs[int(id)][0]
        lanes[key if world.story.ordering is Ordering.PER_KEY else 0].append(int(id))
    for numbers in lanes.values():
        assert numbers == sorted(numbers)


async def until(condition: Any, patience: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def in_virtual_time(story: Story) -> None:
    time = VirtualTime()
    time.install()
    try:
        await play(story, f"memory://{uuid4().hex}", VirtualClock(time), patience=3600.0)
    finally:
        time.remove()


@given(stories)
@settings(max_examples=150, deadline=None)
def test_every_message_comes_to_its_end_in_memory(story: Story) -> None:
    asyncio.run(in_virtual_time(story))


@given(stories)
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # real time: shrinking would take for ever
    suppress_health_check=[HealthCheck.too_slow],
)
def test_every_message_comes_to_its_end_in_sqlite(story: Story) -> None:
    # Real time: waits are shortened to what is kept in memory.
    quick = [(key, [run for run in runs if run != "retry-later"]) for key, runs in story.runs]
    story = Story(quick, story.crashes, story.refusals, story.ordering, story.concurrency)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'queue.db'}"
        asyncio.run(play(story, url, Clock(), patience=20.0))
