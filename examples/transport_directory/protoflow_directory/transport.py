"""The transport: publishing, subscriptions, topology, lag, reading and dead letters."""

import asyncio
import fcntl
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import protoflow.transport as api
from protoflow import errors
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.replay import DeadLetterSources, replay_in_order
from protoflow.transport.kit.subscription import QueueSubscription

from protoflow_directory.files import Entry, Group, Topic, decode, digest, encode, move

Settings = api.SubscriptionSettings
Listener = api.SubscriptionListener
Records = Sequence[api.DeadLetterRecord]
Results = Sequence[errors.PublishError | None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `directory://`."""

    sync: bool = True  # whether a message is written to the disk before it is confirmed
    max_message_bytes: int = 16 * 1024 * 1024  # the largest payload, in bytes
    retention: float = 7 * 86400.0  # seconds for which messages are kept for later groups


def create(settings: api.TransportSettings) -> "DirectoryTransport":
    """Returns the transport for a URL. The entry point names this function."""
    query, config = settings.url.query, settings.options
    return DirectoryTransport(settings, api.parse_options(Options, query, config, "directory"))


class DirectoryTransport:
    """Implements `Transport`."""

    def __init__(self, settings: api.TransportSettings, options: Options) -> None:
        self.capabilities = api.Capabilities(
            durable=True, processes=True, retains=True, broadcast=True, delayed_publish=True,
            max_message_bytes=options.max_message_bytes, leases=True, broker_retry=True, lag=True,
            persists_attempts=True, counts_deliveries=True, per_key=True, per_partition=True,
            proves_killers=True, dead_letters=True, ordered_replays=True, reads_topics=True,
        )  # fmt: skip
        self.settings, self.options = settings, options
        self.dead_letters = DeadLetterStore(self)
        self._root = Path(settings.url.path)
        self._executor = ThreadPoolExecutor(1, "protoflow-directory")
        self._subscriptions: list[Subscription] = []
        self._owner, self._last = uuid.uuid4().hex[:8], 0

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Runs a call in the only thread that uses the files, under a lock between processes."""
        return asyncio.get_running_loop().run_in_executor(self._executor, self._alone, call, args)

    def _alone(self, call: Callable[..., Any], args: Sequence[Any]) -> Any:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            # `~` is not allowed in the names of topics
            with (self._root / "~lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file frees the lock
                return call(*args)
        except OSError as error:
            raise errors.ConnectionFailedError(f"{self._root}: {error}") from error

    def topic(self, name: str) -> Topic:
        """Returns the files of a topic."""
        return Topic(self._root, name)

    def time(self, delay: float = 0.0) -> int:
        """Returns the time now or in some seconds, in milliseconds since the epoch."""
        return round((self.settings.clock.now() + delay) * 1000)

    async def open(self) -> None:
        """Creates the directory. Raises ConnectionFailedError."""
        await self.run(self._root.is_dir)

    async def close(self) -> None:
        """Releases unsettled messages, and removes the groups of broadcasts."""
        while self._subscriptions:
            await (subscription := self._subscriptions.pop()).close()
            if subscription.settings.broadcast:
                await self.run(shutil.rmtree, subscription.group.path)
        self._executor.shutdown(wait=False)

    def health(self) -> str | None:
        """Returns None if the directory exists, else the problem."""
        return None if self._root.is_dir() else f"{self._root} does not exist"

    async def ensure(self, topology: api.Topology, mode: api.TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        self.dead_letters.sources.add(joined := topology.subscriptions)
        names = {name for each in joined for name in (each.topic, *each.dead_letter_topics)}
        topics = [self.topic(name) for name in sorted(names.union(topology.topics))]
        lasting = [each for each in joined if not each.broadcast]
        if mode is api.TopologyMode.CREATE:
            await self.run(self._create, topics, lasting)
        elif mode is api.TopologyMode.VERIFY:
            groups = [self.topic(each.topic).group(each.group) for each in lasting]
            paths = [*(topic.log for topic in topics), *(group.ready for group in groups)]
            if missing := [str(path.parent) for path in paths if not path.is_dir()]:
                raise errors.TopologyError(f"missing: {', '.join(missing)}")

    def _create(self, topics: list[Topic], groups: Sequence[Settings]) -> None:
        for topic in topics:
            topic.log.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - self.options.retention
        for each in groups:
            topic = self.topic(each.topic)
            topic.remove(n for n in topic.entries() if Entry.parse(n).seconds < oldest)
            topic.create_group(each.group, from_start=each.start is api.Start.EARLIEST)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Results]:
        """Publishes messages in the order of the calls."""
        return self.run(list, map(self.publish, messages))

    def publish(self, message: Message, group: Group | None = None) -> errors.PublishError | None:
        """Writes a message for all groups of its topic, or for one group."""
        due = self.time(message.delay) if message.delay else 0
        self._last = max(self._last + 1, time.time_ns())
        try:
            content = encode(message, self.options.max_message_bytes)
            entry = Entry(f"{self._last:020d}{self._owner}", digest(message.key or b""), time=due)
            self.topic(message.topic).publish(content, entry, group, sync=self.options.sync)
        except (TypeError, ValueError, AttributeError) as error:  # writing it again cannot succeed
            return errors.PublishRefusedError(f"message {message.id!r} cannot be stored: {error}")
        except OSError as error:
            return errors.PublishError(f"message {message.id!r} was not written: {error}")
        for subscription in self._subscriptions:
            subscription.wake()
        return None

    async def subscribe(self, settings: Settings, listener: Listener) -> "Subscription":
        """Joins the group; a broadcast gets a group of its own."""
        topic, name = self.topic(settings.topic), settings.group
        if settings.broadcast:
            name = f"{uuid.uuid4().hex}.{name}"
            await self.run(lambda: topic.create_group(name, from_start=False))
        subscription = Subscription(self, topic.group(name), settings, listener)
        self._subscriptions.append(subscription)
        return subscription

    async def lag(self, topic: str, group: str) -> api.Lag:
        """Returns how many messages of a group are not settled."""
        return api.Lag(messages=await self.run(self.topic(topic).group(group).size))

    async def read_topic(
        self, topic: str, *, start: api.Start | api.Point, end: api.Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[api.TopicRecord]:  # fmt: skip
        """Yields the stored messages of the topic."""
        files = self.topic(topic)
        if not files.log.is_dir():
            raise errors.TopologyError(f"topic {topic} does not exist")
        last = f"{time.time_ns():020d}" if start is api.Start.LATEST else ""
        while True:
            records = self.read(topic, await self.run(files.entries, last), api.TopicRecord)
            while page := await self.run(list, islice(records, 100)):
                for record in page:
                    last = record.position
                    if record.is_between(start, end):
                        yield record
            if not follow:
                return
            await asyncio.sleep(0.1)

    def read(self, topic: str, names: list[str], kind: type[Any]) -> Iterator[Any]:
        """Yields the messages of a topic as records of a kind; skips those that were removed."""
        for name in names:
            if (file := self.topic(topic).log / name).exists():
                entry = Entry.parse(name)
                message, _ = decode(file.read_bytes(), topic, entry.sequence)
                yield kind(message=message, position=name, time=entry.seconds)


class Subscription(QueueSubscription):
    """Works on the files of a group for one subscription; the kit does the rest."""

    def __init__(
        self, transport: DirectoryTransport, group: Group, settings: Settings, listener: Listener
    ) -> None:
        self.transport, self.group = transport, group
        self._run, self._time = transport.run, transport.time
        self._held: dict[str, Entry] = {}  # the claims of this subscription, by receipt
        source = QueueSource(
            fetch=partial(self._run, self._fetch), renew=partial(self._run, self._renew),
            settle=lambda settlements: self._run(list, map(self._settle, settlements)), poll=0.1,
        )  # fmt: skip
        super().__init__(source, settings, listener, transport.settings.clock)

    def _lane(self, entry: Entry) -> str:
        """Returns the lane of an entry, which is handled one by one; empty: no lane."""
        lanes = {api.Ordering.PER_KEY: entry.key, api.Ordering.PER_PARTITION: "all"}
        return lanes.get(self.settings.ordering, "")

    def _fetch(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        now, end, taken = self._time(), self._time(self.settings.lease), list[Delivery]()
        self.group.expire(now)  # frees the claims of processes that were killed
        for entry in islice(self.group.due(now, self._lane), max_messages):
            content = (self.group.ready / str(entry)).read_bytes()
            if taken and len(content) > max_bytes:
                break
            claim, count = uuid.uuid4().hex, entry.deliveries + 1
            held = entry._replace(claim=claim, time=end, deliveries=count)
            self.group.hold(entry, held)
            self._held[claim] = held
            max_bytes -= len(content)
            message, unreadable = decode(content, self.settings.topic, held.sequence)
            taken.append(Delivery(
                message=message, unreadable=unreadable, receipt=claim, size=len(content),
                position=held.sequence, time=held.seconds, deliveries=count, failures=held.failures,
                first_failure=held.first_failure / 1000, suspect=held.marks > 0,
            ))  # fmt: skip
        return taken

    def _settle(self, settlement: Settlement) -> SettleResult:
        held = self._held.pop(settlement.delivery.receipt, None)
        self.wake()  # the next message of its lane may be due
        if held is None:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            done = move(self.group.held / str(held), None)
        else:
            due = self._time(settlement.delay) if settlement.delay else 0
            first = round(settlement.first_failure * 1000)
            entry = held._replace(time=due, failures=settlement.failures, first_failure=first)
            done = self.group.free(held, entry)
        return SettleResult.DONE if done else SettleResult.LOST

    def _renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        end = self._time(self.settings.lease)
        return [each for each in deliveries if not self._change(each, time=end)]

    def _change(self, delivery: Delivery, **fields: Any) -> bool:
        """Renames the file of a claim. Returns False if it is not held any more."""
        held = self._held.pop(delivery.receipt, None)
        if held is None or not self.group.hold(held, new := held._replace(**fields)):
            return False
        self._held[delivery.receipt] = new
        return True

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation`. It is the delivery itself, because its file name keeps the marks."""
        held = None if delivery is None else self._held.get(delivery.receipt)
        return None if delivery is None or held is None else (delivery, held.marks)

    async def mark(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        _, marks = await self.isolate(delivery) or (delivery, 0)
        if not await self._run(lambda: self._change(delivery, marks=marks + 1)):
            raise errors.TransportError(f"{self.settings.name}: the delivery is not held any more")

    async def clear(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        await self._run(lambda: self._change(delivery, marks=0))


class DeadLetterStore:
    """Implements `DeadLetterStore`: the messages that are stored in a dead-letter topic."""

    def __init__(self, transport: DirectoryTransport) -> None:
        self.transport, self.sources = transport, DeadLetterSources()

    async def count(self, topic: str) -> int:
        """Returns the number of dead letters."""
        return len(await self.transport.run(self.transport.topic(topic).entries))

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator["Scan"]:
        """Begins a scan. It reads every message and ignores `ids`."""
        if after and after.count(".") != str(Entry("")).count("."):
            raise ValueError(f"after: {after!r:.100} is not the position of a dead letter")
        names = await self.transport.run(self.transport.topic(topic).entries, after)
        yield Scan(self, topic, names)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters; returns their number."""
        files = self.transport.topic(topic)
        return int(await self.transport.run(lambda: files.remove(files.entries())))


class Scan:
    """Implements `DeadLetterScan`."""

    def __init__(self, store: DeadLetterStore, topic: str, names: list[str]) -> None:
        self._transport, self._sources = store.transport, store.sources
        self._files = self._transport.topic(topic)
        self._records = self._transport.read(topic, names, api.DeadLetterRecord)

    async def take(self, limit: int) -> Records:
        """Returns the next records."""
        return [*await self._transport.run(list, islice(self._records, limit))]

    async def replay(self, records: Records, *, to_origin: bool) -> Sequence[Exception | None]:
        """Publishes records, and removes those that were written."""
        transport, groups = self._transport, dict[str, Group | None]()

        async def address(record: api.DeadLetterRecord) -> Message:
            message, name = self._sources.replayed(record, to_origin=to_origin)
            group = None if to_origin else transport.topic(message.topic).group(name)
            if group and not group.ready.is_dir():
                raise errors.NotReplayableError(f"group {name!r:.100} does not exist")
            groups[record.position] = group
            return message

        async def publish(records: Records, messages: Sequence[Message]) -> Results:
            to = [groups[record.position] for record in records]
            return [*await transport.run(list, map(transport.publish, messages, to))]

        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Records) -> None:
        """Removes records."""
        await self._transport.run(self._files.remove, [record.position for record in records])
