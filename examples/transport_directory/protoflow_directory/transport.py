"""The transport: publishing, subscriptions, topology, lag and dead letters."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import protoflow.transport as api
from protoflow import errors
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.replay import DeadLetterSources, replay_in_order
from protoflow.transport.kit.subscription import QueueSubscription

from protoflow_directory.files import Entry, Group, Topic, decode, encode, move

Records = Sequence[api.DeadLetterRecord]
Results = Sequence[errors.PublishError | None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `directory://`."""

    poll: float = 0.1  # seconds before an empty group is looked at again
    sync: bool = True  # whether a message is on the disk before it is confirmed
    max_message_bytes: int = 16 * 1024 * 1024  # the largest payload
    retention: float = 7 * 86400.0  # seconds for which messages are kept for later groups


def create(settings: api.TransportSettings) -> "DirectoryTransport":
    """The transport for a URL: what the entry point names."""
    query, config = settings.url.query, settings.options
    return DirectoryTransport(settings, api.parse_options(Options, query, config, "directory"))


class DirectoryTransport:
    """Implements `Transport`."""

    def __init__(self, settings: api.TransportSettings, options: Options) -> None:
        self.capabilities = api.Capabilities(
            durable=True,
            processes=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            persists_attempts=True,
            counts_deliveries=True,
            dead_letters=True,
            leases=True,
            lag=True,
            proves_killers=True,
            max_message_bytes=options.max_message_bytes,
        )
        self.settings, self.options = settings, options
        self.dead_letters = DeadLetterStore(self)
        self._root = Path(settings.url.path)
        self._executor = ThreadPoolExecutor(1, "protoflow-directory")
        self._subscriptions: list[Subscription] = []
        self._owner, self._last = uuid.uuid4().hex[:8], 0

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Runs a call in the one thread that uses the files."""
        return asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def topic(self, name: str) -> Topic:
        """The files of a topic."""
        return Topic(self._root, name)

    def now(self) -> int:
        """The time in milliseconds since the epoch."""
        return round(self.settings.clock.now() * 1000)

    async def open(self) -> None:
        """Creates the directory. Raises ConnectionFailedError."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.ConnectionFailedError(f"{self._root}: {error}") from error

    async def close(self) -> None:
        """Gives back what is held."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._executor.shutdown(wait=False)

    def health(self) -> str | None:
        """None if the directory exists."""
        return None if self._root.is_dir() else f"{self._root} does not exist"

    async def ensure(self, topology: api.Topology, mode: api.TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        self.dead_letters.sources.add(topology.subscriptions)
        names = {*topology.topics}
        for each in topology.subscriptions:
            names |= {each.topic, *each.dead_letter_topics}
        topics = [self.topic(name) for name in sorted(names)]
        if mode is api.TopologyMode.CREATE:
            await self.run(self._create, topics, topology.subscriptions)
        elif mode is api.TopologyMode.VERIFY:
            groups = [self.topic(each.topic).group(each.group) for each in topology.subscriptions]
            paths = [*(topic.log for topic in topics), *(group.ready for group in groups)]
            if missing := [str(path.parent) for path in paths if not path.is_dir()]:
                raise errors.TopologyError(f"missing: {', '.join(missing)}")

    def _create(self, topics: list[Topic], groups: Sequence[api.SubscriptionSettings]) -> None:
        for topic in topics:
            topic.log.mkdir(parents=True, exist_ok=True)
        oldest = time.time_ns() - round(self.options.retention * 1e9)
        for each in groups:
            topic = self.topic(each.topic)
            for file, sequence, _ in topic.messages():
                if int(sequence[:20]) < oldest:
                    move(file, None)
            topic.create_group(each.group, from_start=each.start is api.Start.EARLIEST)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Results]:
        """Publishes, in the order of the calls."""
        return self.run(lambda: [*map(self.publish, messages)])

    def publish(self, message: Message, group: Group | None = None) -> errors.PublishError | None:
        """Writes a message for all groups of its topic, or for one."""
        due = self.now() + round(message.delay * 1000) if message.delay else 0
        self._last = max(self._last + 1, time.time_ns())
        sequence = f"{self._last:020d}{self._owner}"
        try:
            content = encode(message, self.options.max_message_bytes)
            topic = self.topic(message.topic)
            topic.publish(content, Entry(due, sequence), group, sync=self.options.sync)
        except errors.PublishRefusedError as error:
            return error
        except OSError as error:
            return errors.PublishError(f"message {message.id!r} was not written: {error}")
        for subscription in self._subscriptions:
            subscription.wake()
        return None

    async def subscribe(
        self, settings: api.SubscriptionSettings, listener: api.SubscriptionListener
    ) -> "Subscription":
        """Joins the group."""
        subscription = Subscription(self, settings, listener)
        self._subscriptions.append(subscription)
        return subscription

    async def lag(self, topic: str, group: str) -> api.Lag:
        """How many messages of a group are not settled."""
        files = self.topic(topic).group(group)
        return api.Lag(messages=len(os.listdir(files.ready)) + len(os.listdir(files.held)))


class Subscription(QueueSubscription):
    """What the files of a group do for one subscription; the kit does the rest."""

    def __init__(
        self,
        transport: DirectoryTransport,
        settings: api.SubscriptionSettings,
        listener: api.SubscriptionListener,
    ) -> None:
        self._transport, self._run = transport, transport.run
        self._group = transport.topic(settings.topic).group(settings.group)
        self._held: dict[str, Entry] = {}  # what is claimed here, by receipt
        source = QueueSource(
            fetch=lambda count, size: self._run(self._fetch, count, size),
            settle=lambda settlements: self._run(lambda: [*map(self._settle, settlements)]),
            renew=lambda deliveries: self._run(self._renew, deliveries),
            poll=transport.options.poll,
        )
        super().__init__(source, settings, listener, transport.settings.clock)

    def _lease(self) -> int:
        return self._transport.now() + round(self.settings.lease * 1000)

    def _fetch(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for entry in self._group.due(self._transport.now()):
            if len(taken) == max_messages or max_bytes <= 0:
                break
            claimed = entry._replace(deliveries=entry.deliveries + 1, claim=uuid.uuid4().hex)
            held = claimed._replace(time=self._lease())
            if not self._group.hold("ready", entry, held):
                continue  # another process was first
            delivery = self._delivery(held)
            if delivery.size > max_bytes and taken:
                self._group.free(held, entry)
                break
            max_bytes -= delivery.size
            self._held[held.claim] = held
            taken.append(delivery)
        return taken

    def _delivery(self, held: Entry) -> Delivery:
        content = (self._group.held / str(held)).read_bytes()
        message, unreadable = decode(content, self.settings.topic, held.sequence)
        return Delivery(
            message=message,
            failures=held.failures,
            first_failure=held.first_failure / 1000,
            deliveries=held.deliveries,
            position=int(held.sequence[:20]),
            time=int(held.sequence[:20]) / 1e9,
            size=len(content),
            receipt=held.claim,
            suspect=held.marks > 0,
            unreadable=unreadable,
        )

    def _settle(self, settlement: Settlement) -> SettleResult:
        held = self._held.pop(settlement.delivery.receipt, None)
        if held is None:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            done = move(self._group.held / str(held), None)
        else:
            delay, first = round(settlement.delay * 1000), round(settlement.first_failure * 1000)
            due = self._transport.now() + delay if delay else 0
            entry = held._replace(time=due, failures=settlement.failures, first_failure=first)
            done = self._group.free(held, entry)
        return SettleResult.DONE if done else SettleResult.LOST

    def _renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        end = self._lease()
        return [
            each for each in deliveries if not self._change(each, lambda it: it._replace(time=end))
        ]

    def _change(self, delivery: Delivery, change: Callable[[Entry], Entry]) -> bool:
        """Changes the name of a claimed file. False: it is not held any more."""
        held = self._held.pop(delivery.receipt, None)
        if held is None or not self._group.hold("held", held, new := change(held)):
            return False
        self._held[delivery.receipt] = new
        return True

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation`: the delivery itself, for its name keeps the start marks."""
        held = None if delivery is None else self._held.get(delivery.receipt)
        return None if delivery is None or held is None else (delivery, held.marks)

    async def mark(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        once_more = lambda held: held._replace(marks=held.marks + 1)  # noqa: E731
        if not await self._run(self._change, delivery, once_more):
            raise errors.TransportError(f"{self.settings.name}: the delivery is not held any more")

    async def clear(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        await self._run(self._change, delivery, lambda held: held._replace(marks=0))


class DeadLetterStore:
    """Implements `DeadLetterStore`: the messages that a dead-letter topic keeps."""

    def __init__(self, transport: DirectoryTransport) -> None:
        self.transport, self.sources = transport, DeadLetterSources()

    async def count(self, topic: str) -> int:
        """How many there are."""
        return len([*self.transport.topic(topic).messages()])

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator["Scan"]:
        """Begins a scan; it takes every message, whatever `ids` says."""
        if after and not (len(after) == 28 and after[:20].isdecimal()):
            raise ValueError(f"after: {after!r:.100} is not the position of a dead letter")
        yield Scan(self, topic, after)

    async def clear(self, topic: str) -> int:
        """Removes all."""
        return sum(move(file, None) for file, *_ in self.transport.topic(topic).messages())


class Scan:
    """Implements `DeadLetterScan`."""

    def __init__(self, store: DeadLetterStore, topic: str, after: str) -> None:
        self._store, self._topic = store, topic
        found = store.transport.topic(topic).messages()
        self._files = {sequence: file for file, sequence, _ in found if sequence > after}
        self._records = self._read()

    async def take(self, limit: int) -> Records:
        """The next records."""
        return [*islice(self._records, limit)]

    def _read(self) -> Iterator[api.DeadLetterRecord]:
        for sequence, file in self._files.items():
            if file.exists():
                message, _ = decode(file.read_bytes(), self._topic, sequence)
                seconds = int(sequence[:20]) / 1e9
                yield api.DeadLetterRecord(message=message, position=sequence, time=seconds)

    async def replay(self, records: Records, *, to_origin: bool) -> Sequence[Exception | None]:
        """Publishes records, and removes those that were written."""
        transport, groups = self._store.transport, dict[str, Group | None]()

        async def address(record: api.DeadLetterRecord) -> Message:
            message, name = self._store.sources.replayed(record, to_origin=to_origin)
            group = None if to_origin else transport.topic(message.topic).group(name)
            if group and not group.ready.is_dir():
                raise errors.NotReplayableError(f"group {name!r:.100} does not exist")
            groups[record.position] = group
            return message

        async def publish(records: Records, messages: Sequence[Message]) -> Results:
            to = [groups[record.position] for record in records]
            return [*await transport.run(lambda: [*map(transport.publish, messages, to)])]

        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Records) -> None:
        """Removes records."""
        for record in records:
            move(self._files[record.position], None)
