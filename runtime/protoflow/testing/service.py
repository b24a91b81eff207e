"""A real service on the memory transport, which records the runs of its handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, Unpack, cast

from google.protobuf.message import Message as ProtoMessage

from protoflow import wire
from protoflow.clock import Clock
from protoflow.codecs.payload import decode
from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.config.url import TransportURL
from protoflow.context import Context
from protoflow.contract.spec import PublicationSpec
from protoflow.handler import Handler, HandlerSync
from protoflow.message import Delivery, Message
from protoflow.middleware import Dependencies
from protoflow.outcomes import DeadLetter as GivenUp
from protoflow.outcomes import Outcome, Postpone, Retry
from protoflow.output import AnyOutput
from protoflow.pipeline import Chain, HandlerSpec, Middleware, Next
from protoflow.service.service import Service
from protoflow.testing.virtual_time import VirtualClock, VirtualTime
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.memory import MemoryOptions, MemoryTransport
from protoflow.transports.memory.broker import Broker
from protoflow.transports.memory.dead_letters import as_record

T = TypeVar("T", bound=ProtoMessage)

#: The most virtual time in seconds that `settled` waits.
PATIENCE = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a handler.

    Attributes:
        handler: the full name of the method.
        message: the message; for batches the first one.
        attempt: the number of this run of the message, from 1.
        outcome: the outcome.
        time: when it ended, in seconds since the epoch.
    """

    handler: str
    message: Message
    attempt: int
    outcome: Outcome
    time: float


class TestedService:
    """A running service under test; a `Publisher`.

    Attributes:
        service: the service itself.
        clock: the clock of the service.
        runs: every run of a handler, in the order in which they ended.
        messages: every message that was published, by handlers, producers or as a dead
            letter, in order.
    """

    __test__ = False  # pytest would take the class for a test case

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.runs: list[Run] = []
        self.messages: list[Message] = []
        self.service: Service
        self._brokers: list[Broker] = []

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes through the service."""
        return await self.service.publish_outputs(publication, outputs)

    def published(self, message_class: type[T]) -> list[T]:
        """Returns the published messages of this class, without dead letters."""
        name = message_class.DESCRIPTOR.full_name
        return [
            cast(
                "T", decode(message.payload, message.metadata.get(wire.CONTENT_TYPE), message_class)
            )
            for message in self.messages
            if message.metadata.get(wire.CE_TYPE) == name
            and wire.PF_DEAD_LETTER not in message.metadata
            and message.payload is not None
        ]

    @property
    def retried(self) -> list[Run]:
        """The runs that failed and were repeated."""
        return [run for run in self.runs if isinstance(run.outcome, Retry)]

    @property
    def given_up(self) -> list[Run]:
        """The runs after which a message was dead-lettered."""
        return [run for run in self.runs if isinstance(run.outcome, GivenUp)]

    @property
    def dead_letters(self) -> list[DeadLetterRecord]:
        """The current dead letters of all topics."""
        return [
            as_record(stored)
            for broker in self._brokers
            for topic in list(broker.topics.values())
            for stored in (topic.dead_letters or {}).values()
        ]

    async def settled(self, patience: float = PATIENCE) -> None:
        """Advances time until every message is handled, dead-lettered or dropped.

        Raises:
            TimeoutError: messages remain after `patience` seconds of virtual time. The text lists
                them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        pause = 0.001
        while left := self._left():
            if loop.time() >= deadline:
                raise TimeoutError(f"not settled after {patience:g} s: {', '.join(left)}")
            await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
            pause = min(pause * 2, 60.0)

    async def advance(self, seconds: float) -> None:
        """Advances virtual time."""
        await asyncio.sleep(seconds)

    async def replay_dead_letters(self) -> int:
        """Replays every dead letter to the group that failed; returns their number."""
        dead_letters = self.service.dead_letters
        return sum([await dead_letters.replay(topic) for topic in dead_letters.topics])

    def _left(self) -> list[str]:
        left = [
            f"{group.size} of {topic.name} in group {group.name}"
            for broker in self._brokers
            for topic in broker.topics.values()
            for group in topic.groups.values()
            if group.size
        ]
        return left + [
            f"{scheduler.in_flight.count} in flight in {scheduler.settings.name}"
            for scheduler in self.service.subscriptions
            if not scheduler.settled
        ]


@asynccontextmanager
async def run(
    *handlers: Handler | HandlerSync,
    config: Config | None = None,
    middleware: Chain | Sequence[Middleware] | None = None,
    setup: Callable[[Service], None] = lambda _service: None,
    virtual_time: bool = True,
    seed: int = 0,
    **dependencies: Unpack[Dependencies],
) -> AsyncIterator[TestedService]:
    """Runs a service with these handlers on a memory broker of its own.

    Args:
        handlers: instances of generated handler classes.
        config: settings; each transport is replaced by a memory broker of its own.
        middleware: as for `Service`.
        setup: called with the service before it starts, for example to register handlers.
        virtual_time: False keeps the loop's real time.
        seed: the seed of the random part of backoffs.
        dependencies: as for `Service`.
    """
    threads: list[Service] = []
    time = VirtualTime(lambda: any(service.busy_threads for service in threads))
    clock: Clock = VirtualClock(time, seed) if virtual_time else Clock()
    tested = TestedService(clock)
    if virtual_time:
        time.install()
    try:
        service = _service(tested, config or Config(environ={}), middleware, dependencies)
        threads.append(service)
        service.register(*handlers)
        setup(service)
        async with service:
            yield tested
    finally:
        if virtual_time:
            time.remove()


def _service(
    tested: TestedService,
    config: Config,
    middleware: Chain | Sequence[Middleware] | None,
    dependencies: Dependencies,
) -> Service:
    transports: dict[str, Transport] = {}
    for name in (DEFAULT, *config.transports):
        settings = TransportSettings(url=TransportURL(scheme="memory"), clock=tested.clock)
        transport = MemoryTransport(settings, MemoryOptions())
        transport.broker = _RecordingBroker(tested.messages)
        tested._brokers.append(transport.broker)
        transports[name] = transport
    service = tested.service = Service(
        config, middleware=middleware, clock=tested.clock, transport=transports, **dependencies
    )
    outermost = service.middleware.names[0] if service.middleware.names else None
    service.register_middleware("testing", _recording(tested), before=outermost)
    return service


class _RecordingBroker(Broker):
    """A memory broker that records published messages."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__()
        self._messages = messages

    def publish(
        self,
        messages: Sequence[Message],
        options: MemoryOptions,
        now: float,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self._messages += messages
        super().publish(messages, options, now, sizes)


def _recording(tested: TestedService) -> Middleware:
    def record(next: Next, spec: HandlerSpec) -> Next:
        async def run(delivery: Delivery, context: Context) -> Outcome:
            outcome = await next(delivery, context)
            if isinstance(outcome, Postpone):  # a postponed message was not run
                return outcome
            tested.runs.append(
                Run(
                    handler=spec.name,
                    message=context.message,
                    attempt=context.attempt,
                    outcome=outcome,
                    time=tested.clock.now(),
                )
            )
            return outcome

        return run

    return record
