"""What a service-level case works with: services, producers, and eyes on the broker."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from protoflow import transports, wire
from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.config.url import TransportURL
from protoflow.connection import Connection, transport_for
from protoflow.contract.policy import merge
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy, Start
from protoflow.dead_letters import DeadLetters, dead_letters_of
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message, Settlement
from protoflow.service import Service
from protoflow.testing import Listener
from protoflow.testing.transports.harness import MEGABYTE
from protoflow.transport import (
    Capabilities,
    Subscription,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)

from tests.acceptance.contract import handler as handler
from tests.acceptance.contract import method as method
from tests.acceptance.contract import pb, pf
from tests.acceptance.contract import sync_handler as sync_handler
from tests.acceptance.faulty import Faulty
from tests.acceptance.targets import Target


class Watcher:
    """A group of its own on a topic: what really was published there."""

    def __init__(self, subscription: Subscription, patience: float) -> None:
        self.messages: list[Message] = []
        self._subscription = subscription
        self._patience = patience
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while batch := await self._subscription.receive(256, 64 * MEGABYTE):
            self.messages += [delivery.message for delivery in batch]
            settlements = [Settlement(delivery) for delivery in batch]
            while True:  # as the runtime does
                try:
                    await self._subscription.settle(settlements)
                    break
                except TransportError:
                    await asyncio.sleep(0.05)

    async def take(self, count: int, *, within: float = 10.0) -> list[Message]:
        """The first `count` messages, waiting for them."""
        deadline = time.monotonic() + within * self._patience
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"{len(self.messages)} of {count} came"
            await asyncio.sleep(0.01)
        return self.messages[:count]

    async def exactly(self, count: int, *, within: float = 10.0) -> list[Message]:
        """So many, and no more for a while."""
        await self.take(count, within=within)
        await asyncio.sleep(0.2 * self._patience)
        assert len(self.messages) == count
        return self.messages

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._subscription.stop()


class BackgroundPublisher:
    """Publishes as an outbox does: in the background, and again until it is confirmed.

    A message that the receiver has given up, so that the sender keeps it, is not sent again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending: set[asyncio.Task[None]] = set()

    async def publish_outputs(self, publication: Any, outputs: Sequence[Any]) -> list[str]:
        encode = self._connection.message_publisher.encode
        messages = [encode(publication, output) for output in outputs]
        if any(message.delay for message in messages):
            await self._connection.message_publisher.messages(messages)
            return [message.id for message in messages]
        for message in messages:
            self.send(message)
        return [message.id for message in messages]

    def send(self, message: Message) -> None:
        task = asyncio.create_task(self._send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, message: Message) -> None:
        while True:
            try:
                await self._connection.message_publisher.messages([message])
                return
            except PublishError as error:
                if isinstance(error, PublishRefusedError) or "answered 500" in str(error):
                    return
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)


class Harness:
    """A broker namespace of one case."""

    def __init__(self, target: Target, url: str, directory: Path) -> None:
        self.target = target
        self.url = url
        self.directory = directory
        self.namespace = f"n{uuid.uuid4().hex[:12]}"
        self.patience = target.patience
        self.transport: Transport
        self.producer: Any
        self.connection: Connection
        self._watchers: list[Watcher] = []
        self._background: BackgroundPublisher

    async def open(self) -> None:
        self.transport = transports.create(
            TransportSettings(url=TransportURL.parse(self.url), options=dict(self.target.options))
        )
        await self.transport.open()
        self.connection = Connection(self.config())
        await self.connection.open()
        self._background = BackgroundPublisher(self.connection)
        later = self.target.confirms_when_settled
        self.producer = pf.SuiteEventProducer(self._background if later else self.connection)

    async def close(self) -> None:
        await self._background.close()
        for watcher in self._watchers:
            await watcher.stop()
        await self.connection.close()
        await self.transport.close()

    @property
    def capabilities(self) -> Capabilities:
        return self.transport.capabilities

    @property
    def always_atomic(self) -> bool:
        """Whether outputs are atomic without the policy asking for it."""
        return self.capabilities.atomic and not self.capabilities.atomic_on_demand

    def require(self, *capabilities: str) -> None:
        """Skips the case where the transport does not claim these: fields of its `Capabilities`,
        or of its `Target`."""
        for capability in capabilities:
            claims = self.capabilities if hasattr(self.capabilities, capability) else self.target
            if not getattr(claims, capability):
                pytest.skip(f"capability: {capability}")

    # Services.

    def settings(self, **settings: Any) -> dict[str, Any]:
        """The settings of a service of this case, as plain values."""
        return {
            "transport": self.url,
            "transport_options": dict(self.target.options),
            "namespace": self.namespace,
            "lease": self.target.lease,
            "handle_signals": False,
            "shutdown_timeout": 10.0,
            "connect_timeout": 30.0,
            **settings,
        }

    def config(self, **settings: Any) -> Config:
        return Config(environ={}, **self.settings(**settings))

    def service(
        self, *handlers: Any, policy: DeliveryPolicy | None = None, faulty: bool = False,
        options: dict[str, Any] | None = None, **settings: Any,
    ) -> Service:  # fmt: skip
        """A service, not started. `policy` overrides that of every handler given, `options`
        are those of `Service`."""
        names = [
            method.name for item in handlers for method in type(item).__protoflow_spec__.methods
        ]
        if not self.capabilities.at_least_once and "handlers" not in settings:
            # The suite's contract demands retries, which such a transport refuses.
            once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
            policy = merge(once, policy or DeliveryPolicy())
        if policy is not None:
            settings["handlers"] = dict.fromkeys(names, policy)
        config = self.config(**settings)
        options = dict(options or {})
        if faulty:
            options["transport"] = Faulty(transport_for(config, Clock()))
        service = Service(config, **options)
        service.register(*handlers)
        return service

    @asynccontextmanager
    async def running(self, *handlers: Any, **settings: Any) -> AsyncIterator[Service]:
        service = self.service(*handlers, **settings)
        async with asyncio.timeout(60 * self.patience):
            await service.start()
        try:
            yield service
        finally:
            async with asyncio.timeout(60 * self.patience):
                await service.stop()

    async def prepare(self, *handlers: Any, **settings: Any) -> None:
        """Makes the topology, so that what is published is kept for the group."""
        async with self.running(*handlers, **settings):
            pass

    # Publishing.

    async def send(self, *numbers: int, key: str = "", **fields: Any) -> list[str]:
        """Publishes tasks; their ids."""
        tasks = [pb.Task(number=number, key=key, **fields) for number in numbers]
        ids: list[str] = await self.producer.publish_task_many(tasks)
        return ids

    async def publish(
        self, topic: str, payload: bytes | None, *, id: str | None = None,
        key: bytes | None = None, metadata: dict[str, str] | None = None, headers: Any = None,
        delay: timedelta | None = None,
    ) -> Message:  # fmt: skip
        """Publishes a raw message to a topic, namespace left out, as a stranger might: its
        metadata may hold what `publish` refuses."""
        message = Message(
            id=id or uuid.uuid4().hex,
            topic=self.physical(topic),
            payload=payload,
            key=key,
            metadata=metadata or {},
            headers=headers,
            delay=delay.total_seconds() if delay else 0.0,
        )
        if self.target.confirms_when_settled:
            self._background.send(message)
        else:
            await self.connection._publisher.messages([message])
        return message

    def physical(self, topic: str) -> str:
        return f"{self.namespace}..{topic}"

    # Reading the broker.

    async def watch(self, topic: str, *, group: str = "watcher") -> Watcher:
        """Everything that is published to the topic from now on."""
        settings = SubscriptionSettings(
            name=f"{topic}/{group}",
            topic=self.physical(topic),
            group=self.physical(group),
            start=Start.LATEST,
            lease=self.target.lease,
        )
        await self.transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        subscription = await self.transport.subscribe(settings, Listener())
        watcher = Watcher(subscription, self.patience)
        self._watchers.append(watcher)
        return watcher

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters at the broker."""
        self.require("dead_letters")
        return dead_letters_of(self.transport)

    def dead_letter_topic(self, topic: str = "tasks", group: str = "workers") -> str:
        return self.physical(f"{topic}..{group}..dead")

    async def dead_letter_messages(
        self, count: int, topic: str | None = None, *, within: float = 10.0
    ) -> list[Message]:
        """The dead letters that lie there: so many, and no more for a moment."""
        where = topic or self.dead_letter_topic()
        deadline = time.monotonic() + within * self.patience
        while (found := await self.dead_letters.count(where)) < count:
            assert time.monotonic() < deadline, f"{found} of {count} dead letters in {where}"
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05 * self.patience)
        listed = await self.dead_letters.list(where, limit=count + 100)
        assert len(listed) == count
        return [dead_letter.message for dead_letter in listed]

    # Waiting.

    async def until(
        self, condition: Callable[[], Any], *, within: float = 10.0, what: str = ""
    ) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + within * self.patience
        while not condition():
            assert time.monotonic() < deadline, what or "it did not happen in time"
            await asyncio.sleep(0.005)

    async def settled(self, *services: Service, within: float = 10.0) -> None:
        """Waits until the services have nothing in flight for a moment."""
        calm = 0
        deadline = time.monotonic() + within * self.patience
        while calm < 5:
            busy = any(
                not scheduler.settled for service in services for scheduler in service.subscriptions
            )
            calm = 0 if busy else calm + 1
            assert time.monotonic() < deadline, "the services do not come to rest"
            await asyncio.sleep(0.01)

    async def quiet(self, seconds: float = 0.3) -> None:
        """Time in which something would have happened."""
        await asyncio.sleep(seconds * self.patience)


class Seen:
    """What a handler saw, in order. Use its methods as the handler."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.runs: list[tuple[int, int]] = []
        self.contexts: list[Any] = []
        self.done: list[int] = []

    async def ok(self, task: Any, context: Any) -> None:
        self.note(task, context)
        self.done.append(task.number)

    async def fails(self, task: Any, context: Any) -> None:
        self.note(task, context)
        raise ValueError(f"task {task.number} is bad")

    def note(self, task: Any, context: Any) -> None:
        self.runs.append((task.number, context.attempt))
        self.contexts.append(context)

    async def until(self, count: int, *, within: float = 10.0) -> None:
        """So many runs have begun."""
        await self.harness.until(
            lambda: len(self.runs) >= count, within=within,
            what=f"{count} runs were expected",
        )  # fmt: skip

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.runs]

    @property
    def attempts(self) -> list[int]:
        return [attempt for _, attempt in self.runs]


def failing(error: Exception | type[Exception], times: int, seen: Seen) -> Callable[..., Any]:
    """A handler that fails so many times for each task, then works."""
    failures: dict[int, int] = {}

    async def call(task: Any, context: Any) -> None:
        seen.note(task, context)
        failures[task.number] = failures.get(task.number, 0) + 1
        if failures[task.number] <= times:
            raise error if isinstance(error, Exception) else error("on purpose")
        seen.done.append(task.number)

    return call


def tasks(messages: Sequence[Message]) -> list[int]:
    """The numbers of encoded tasks or results."""
    return [pb.Done.FromString(message.payload or b"").number for message in messages]


def task_metadata(**more: str) -> dict[str, str]:
    """What a task from elsewhere says of itself."""
    return {wire.CE_TYPE: "suite.v1.Task", wire.CE_SOURCE: "/elsewhere", **more}


async def gather(*awaitables: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*awaitables))
