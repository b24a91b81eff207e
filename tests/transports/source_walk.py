"""The walk over a place of other programs: what every transport with `sources` must do there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from protoflow import Config, Context, Service, wire
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.dead_letters import DeadLetters, dead_letters_of
from protoflow.transport import Topology, TopologyMode, Transport

from tests.acceptance.contract import pb
from tests.acceptance.harness import handler

PATIENCE = 30.0
WATERMILL = {wire.WATERMILL_ID: "w-1", wire.WATERMILL_NAME: "legacy.Order"}
BINARY = pb.Task(number=3, note="binary").SerializeToString()
#: What other programs send: number, payload, content type, headers.
SENT: list[tuple[int, bytes, str | None, Mapping[str, str]]] = [
    (1, b'{"number": 1, "unknownField": true}', None, {}),
    (2, b'{"number": 2}', "application/json", {"tenant": "acme"}),
    (3, BINARY, "application/protobuf", {"tenant": "acme"}),
    (4, pb.Task(number=4).SerializeToString(), None, {}),
    # A type and a content type that nobody here knows: the settings of the source decide.
    (5, b'{"number": 5}', "text/plain", {"tenant": "acme", **WATERMILL}),
]
RETRIED = DeliveryPolicy(
    retry=RetryPolicy(max_attempts=3, initial_backoff=0.1, max_backoff=0.1, jitter=0.0)
)


class ForeignPlace(Protocol):
    """A queue, stream or topic of other programs, seen by their own client."""

    name: str

    @property
    def source(self) -> Mapping[str, str]:
        """Returns the settings of the source."""
        ...

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        """Publishes as other programs do."""

    async def topology(self) -> Any:
        """Returns everything that describes the place at the broker."""

    async def waiting(self) -> int:
        """Returns how many messages are not settled."""
        ...


@dataclass
class Run:
    """One run of the handler."""

    number: int
    attempt: int
    context: Context


@dataclass
class Walk:
    """A group that consumes the topic `tasks` from a place of other programs."""

    url: str
    place: ForeignPlace
    namespace: str = field(default_factory=lambda: f"s{uuid.uuid4().hex[:10]}")
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    failing: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def config(self, **changed: Any) -> Config:
        settings: dict[str, Any] = {
            "transport": self.url,
            "namespace": self.namespace,
            "topics": {"tasks": {"source": {**self.place.source, **self.labels}}},
            "retry_in_place": 0.0,
            "retry_ladder": (0.2,),
            "defaults": RETRIED,
            "handlers": {"suite.v1.Work.Work": RETRIED},
        }
        return Config(environ={}, **(settings | dict(self.settings) | changed))

    async def handle(self, task: Any, context: Context, /) -> None:
        self.runs.append(Run(task.number, context.attempt, context))
        self.came.set()
        if task.number in self.failing:
            raise RuntimeError("no")

    @asynccontextmanager
    async def running(self, **changed: Any) -> AsyncIterator[Service]:
        service = Service(self.config(**changed))
        service.register(handler("Work", self.handle))
        async with service:
            yield service

    async def until(self, done: Any) -> None:
        """Waits until a condition on the runs holds."""
        async with asyncio.timeout(PATIENCE):
            while not done():
                self.came.clear()
                await self.came.wait()

    async def settled(self) -> None:
        """Waits until no message waits at the place."""
        async with asyncio.timeout(PATIENCE):
            while await self.place.waiting():
                await asyncio.sleep(0.05)

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.namespace}..tasks..workers..dead"

    async def dead_letters(self, service: Service, count: int) -> tuple[DeadLetters, list[Any]]:
        """Returns the dead letters, once they are there."""
        found = dead_letters_of(service.transport)
        async with asyncio.timeout(PATIENCE):
            while await found.count(self.dead_letter_topic) < count:
                await asyncio.sleep(0.05)
        return found, [*await found.list(self.dead_letter_topic)]


async def foreign_messages_are_handled(walk: Walk) -> None:
    """JSON and protobuf, with and without headers and types; nothing at the place changes."""
    walk.labels = {"type": "suite.v1.Task", "content_type": "application/json"}
    before = await walk.place.topology()
    for _, payload, content_type, headers in SENT[:3] + SENT[4:]:
        await walk.place.publish(payload, content_type, headers)
    async with walk.running():
        await walk.until(lambda: len(walk.runs) >= 4)
        await walk.settled()
    assert sorted(run.number for run in walk.runs) == [1, 2, 3, 5]
    tenants = {run.number: run.context.metadata.get("tenant") for run in walk.runs}
    assert (tenants[2], tenants[3], tenants[5]) == ("acme", "acme", "acme")
    assert {run.context.topic for run in walk.runs} == {f"{walk.namespace}..tasks"}
    walk.runs.clear()
    walk.labels = {}  # then the payload decides, and unknown types are skipped
    for _, payload, content_type, headers in SENT:
        await walk.place.publish(payload, content_type, headers)
    async with walk.running():
        await walk.until(lambda: len(walk.runs) >= 4)
        await walk.settled()
    assert sorted(run.number for run in walk.runs) == [1, 2, 3, 4]
    assert await walk.place.topology() == before


async def failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    """The count survives a restart; the dead letter holds what came; a replay is handled."""
    walk.failing.add(2)
    before = await walk.place.topology()
    number, payload, content_type, headers = SENT[1]
    await walk.place.publish(payload, content_type, headers)
    async with walk.running():
        await walk.until(lambda: walk.runs)
        await walk.settled()  # it has left the place, and waits in ours
    async with walk.running() as service:
        await walk.until(lambda: any(run.attempt == 3 for run in walk.runs))
        found, (record,) = await walk.dead_letters(service, 1)
        assert [(run.number, run.attempt) for run in walk.runs] == [
            (number, attempt) for attempt in (1, 2, 3)
        ]
        message = record.message
        assert (message.payload, message.metadata["tenant"]) == (payload, "acme")
        assert message.metadata[wire.PF_ATTEMPT] == "3"
        assert message.metadata[wire.PF_ORIGINAL_TOPIC] == f"{walk.namespace}..tasks"
        assert message.metadata[wire.PF_ORIGINAL_SOURCE] == walk.place.name
        assert await walk.place.waiting() == 0
        walk.failing.clear()
        assert await found.replay(walk.dead_letter_topic) == 1
        await walk.until(lambda: len(walk.runs) == 4)
        assert walk.runs[-1].attempt == 1
    assert await walk.place.topology() == before


async def topology_is_verified_and_published_to(walk: Walk, *, publishes: bool = True) -> None:
    """Mode verify names what is missing of ours only; our own producers reach the place."""
    before = await walk.place.topology()
    async with walk.running():
        pass
    async with walk.running(topology=TopologyMode.VERIFY) as service:
        if publishes:
            await service.publish_proto("tasks", pb.Task(number=7))
            await walk.until(lambda: walk.runs)
            assert [run.number for run in walk.runs] == [7]
            await walk.settled()
    assert await walk.place.topology() == before


async def lag_of(transport: Transport, namespace: str) -> int:
    """Returns the messages that wait for the group."""
    lag = await transport.lag(f"{namespace}..tasks", f"{namespace}..workers")  # type: ignore[attr-defined]
    return int(lag.messages)


__all__ = [
    "ForeignPlace", "Topology", "Walk", "failures_are_retried_and_dead_lettered_beside",
    "foreign_messages_are_handled", "lag_of", "topology_is_verified_and_published_to",
]  # fmt: skip
