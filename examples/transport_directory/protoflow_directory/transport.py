"""The transport: publishing, topology, lag and dead letters."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from protoflow.errors import ConnectionFailedError, PublishError, PublishRefusedError, TopologyError
from protoflow.message import Message
from protoflow.transport import (
    Capabilities,
    Lag,
    Start,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)

from protoflow_directory.files import Entry, Group, Numbers, Topic, encode, milliseconds
from protoflow_directory.subscription import DirectorySubscription

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DirectoryOptions:
    """The options of `directory://`.

    Attributes:
        poll: seconds before an empty group is looked at again.
        max_message_bytes: the largest payload.
        retention: seconds for which a topic keeps messages for groups that come later.
    """

    poll: float = 0.1
    max_message_bytes: int = 16 * 1024 * 1024
    retention: float = 7 * 86400.0


class DirectoryTransport:
    """Implements `Transport`."""

    def __init__(self, settings: TransportSettings, options: DirectoryOptions) -> None:
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            remembers_failures=True,
            counts_deliveries=True,
            leases=True,
            lag=True,
            proves_killers=True,
            max_message_bytes=options.max_message_bytes,
        )
        self._settings = settings
        self._options = options
        self._root = Path(settings.url.path)
        self._numbers = Numbers()
        self._executor = ThreadPoolExecutor(1, "protoflow-directory")
        self._subscriptions: list[DirectorySubscription] = []

    def _run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def open(self) -> None:
        """Creates the directory. Raises ConnectionFailedError."""
        try:
            await self._run(lambda: self._root.mkdir(parents=True, exist_ok=True))
        except OSError as error:
            raise ConnectionFailedError(f"{self._root} cannot be used: {error}") from error

    async def close(self) -> None:
        """Gives back what is held."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._executor.shutdown(wait=False)

    def health(self) -> str | None:
        """None if the directory is there."""
        return None if self._root.is_dir() else f"{self._root} is not there"

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        if mode is not TopologyMode.NONE:
            missing = await self._run(lambda: self._ensure(topology, mode))
            if missing:
                raise TopologyError(f"missing in {self._root}: {', '.join(missing)}")

    def _ensure(self, topology: Topology, mode: TopologyMode) -> list[str]:
        missing: list[str] = []
        dead = {name for each in topology.subscriptions for name in each.dead_letter_topics}
        for name in {*topology.topics, *dead, *(each.topic for each in topology.subscriptions)}:
            topic = Topic(self._root, name)
            if mode is TopologyMode.CREATE:
                topic.log.mkdir(parents=True, exist_ok=True)
                if name in dead:
                    (topic.path / "dead_letters").touch()  # are kept for ever
                topic.forget(time.time_ns() - round(self._options.retention * 1e9))
            elif not topic.log.is_dir():
                missing.append(f"topic {name}")
        for each in topology.subscriptions:
            topic = Topic(self._root, each.topic)
            group = Group(topic.path, each.group)
            if mode is TopologyMode.CREATE:
                group.create(topic.messages() if each.start is Start.EARLIEST else ())
            elif not group.ready.is_dir():
                missing.append(f"group {each.group} of {each.topic}")
        return missing

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes, in the order of the calls: there is one thread."""
        return self._run(lambda: [*map(self._publish, messages)])

    def _publish(self, message: Message) -> PublishError | None:
        try:
            content = encode(message)
            if len(message.payload or b"") > self._options.max_message_bytes:
                raise PublishRefusedError(f"message {message.id!r} is too large")
            topic = Topic(self._root, message.topic)
            topic.log.mkdir(parents=True, exist_ok=True)
            now = self._settings.clock.now()
            due = milliseconds(now + message.delay) if message.delay else 0
            sequence = self._numbers.next()
            file = topic.write(content, sequence, due)
            for group in topic.groups():
                group.add(file, Entry(due, sequence))
        except PublishRefusedError as error:
            return error
        except OSError as error:
            return PublishError(f"message {message.id!r} was not written: {error}")
        for subscription in self._subscriptions:
            if subscription.settings.topic == message.topic:
                subscription.wake()
        return None

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> DirectorySubscription:
        """Joins the group."""
        group = Group(Topic(self._root, settings.topic).path, settings.group)
        subscription = DirectorySubscription(
            group, self._executor, self._options.poll, settings, listener, self._settings
        )
        self._subscriptions.append(subscription)
        return subscription

    async def lag(self, topic: str, group: str) -> Lag:
        """How many messages of a group are not settled."""
        files = Group(Topic(self._root, topic).path, group)
        return Lag(
            messages=await self._run(
                lambda: len(os.listdir(files.ready)) + len(os.listdir(files.held))
            )
        )
