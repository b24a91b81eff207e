"""The transport: publishing, topology and lag."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    Transport,
    TransportSettings,
    parse_options,
)

from protoflow_directory.files import Group, Topic, encode, move
from protoflow_directory.subscription import DirectorySubscription


@dataclass(frozen=True, kw_only=True)
class DirectoryOptions:
    """The options of `directory://`."""

    poll: float = 0.1  # seconds before an empty group is looked at again
    max_message_bytes: int = 16 * 1024 * 1024  # the largest payload
    retention: float = 7 * 86400.0  # seconds for which messages are kept for later groups


def create(settings: TransportSettings) -> Transport:
    """The transport for a URL: what the entry point names."""
    query, config = settings.url.query, settings.options
    options = parse_options(DirectoryOptions, query, config, "directory")
    return DirectoryTransport(settings, options)


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
        self._executor = ThreadPoolExecutor(1, "protoflow-directory")
        self._subscriptions: list[DirectorySubscription] = []
        self._owner, self._last = uuid.uuid4().hex[:8], 0

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Runs a call in the one thread that uses the files."""
        return asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def topic(self, name: str) -> Topic:
        """The files of a topic."""
        return Topic(self._root, name)

    async def open(self) -> None:
        """Creates the directory. Raises ConnectionFailedError."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConnectionFailedError(f"{self._root} cannot be created: {error}") from error

    async def close(self) -> None:
        """Gives back what is held."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._executor.shutdown(wait=False)

    def health(self) -> str | None:
        """None if the directory exists."""
        return None if self._root.is_dir() else f"{self._root} does not exist"

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        if mode is TopologyMode.CREATE:
            await self.run(self._create, topology)
        elif mode is TopologyMode.VERIFY and (missing := await self.run(self._missing, topology)):
            raise TopologyError(f"missing: {', '.join(missing)}")

    def _create(self, topology: Topology) -> None:
        for topic in self._topics(topology):
            topic.log.mkdir(parents=True, exist_ok=True)
        oldest = time.time_ns() - round(self._options.retention * 1e9)
        for each in topology.subscriptions:
            topic = self.topic(each.topic)
            for file, sequence, _ in topic.messages():
                if int(sequence[:20]) < oldest:
                    move(file, None)
            topic.create_group(each.group, from_start=each.start is Start.EARLIEST)

    def _missing(self, topology: Topology) -> list[str]:
        topics = [topic.log for topic in self._topics(topology)]
        groups = [self.topic(each.topic).group(each.group).ready for each in topology.subscriptions]
        return [str(path.parent) for path in [*topics, *groups] if not path.is_dir()]

    def _topics(self, topology: Topology) -> list[Topic]:
        names = {*topology.topics}
        for each in topology.subscriptions:
            names |= {each.topic, *each.dead_letter_topics}
        return [self.topic(name) for name in sorted(names)]

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes, in the order of the calls."""
        return self.run(lambda: [*map(self._publish, messages)])

    def _publish(self, message: Message) -> PublishError | None:
        try:
            self.write(message)
        except PublishRefusedError as error:
            return error
        except OSError as error:
            return PublishError(f"message {message.id!r} was not written: {error}")
        return None

    def write(self, message: Message, group: Group | None = None) -> None:
        """Writes a message for all groups of its topic, or for one."""
        content = encode(message, self._options.max_message_bytes)
        due = round((self._settings.clock.now() + message.delay) * 1000) if message.delay else 0
        self._last = max(self._last + 1, time.time_ns())
        sequence = f"{self._last:020d}{self._owner}"
        self.topic(message.topic).publish(content, sequence, due, group)
        for subscription in self._subscriptions:
            subscription.wake()

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> DirectorySubscription:
        """Joins the group."""
        group = self.topic(settings.topic).group(settings.group)
        poll, transport = self._options.poll, self._settings
        subscription = DirectorySubscription(group, self.run, poll, transport, settings, listener)
        self._subscriptions.append(subscription)
        return subscription

    async def lag(self, topic: str, group: str) -> Lag:
        """How many messages of a group are not settled."""
        files = self.topic(topic).group(group)
        return Lag(messages=len(os.listdir(files.ready)) + len(os.listdir(files.held)))
