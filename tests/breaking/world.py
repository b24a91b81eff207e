"""Old and new versions over one broker, under a load that fails in part; losses are counted."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from protoflow import Context, Inbox, Service
from protoflow.connection import Connection
from protoflow.contract.spec import (
    Effects,
    MessageSpec,
    MethodSpec,
    OnExhausted,
    Ordering,
    PublicationSpec,
    UnhandledTypes,
)
from protoflow.handler import Handler
from protoflow.outcomes import DeadLetter
from protoflow.output import Output

from tests.breaking.mutations import Mutation
from tests.breaking.versions import Version

KEYS = range(3)
EIGHT_DAYS = 8 * 86400
#: Looks at the broker, and at what the handlers did, that must be alike before nothing moves.
_STILL = 4
#: Seconds until what is left is taken for lost.
_PATIENCE = 20.0
#: Seconds that a slow run takes.
_SLOW = 0.05
#: Types that others publish: one that an alias may name, and one that nothing handles.
_LEGACY = "legacy.OrderPaid"
_FOREIGN = "foreign"


@dataclass
class Sent:
    """A published message."""

    n: int
    version: Version
    message: str
    key: int
    topic: str
    final: bool
    expected: bool
    foreign: bool = False
    dead: bool = False
    refused: bool = False


@dataclass
class Findings:
    """What went wrong."""

    missing: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.disorder)


class World:
    """A broker, the consumers of some versions, and what they did.

    Attributes:
        pause: seconds between two looks.
    """

    pause = 0.012

    def __init__(
        self, old: Version, new: Version, elsewhere: list[Version], mutation: Mutation
    ) -> None:
        self.old, self.new, self.elsewhere = old, new, elsewhere
        self.sent: dict[int, Sent] = {}
        self.ids: dict[str, int] = {}
        self.done: list[tuple[int, str, int]] = []
        self.outputs: dict[int, int] = {}
        self.failing: set[int] = set()
        self.failing_once: set[int] = set()
        self.failing_outputs: set[tuple[int, str]] = set()
        self.poisoned: set[int] = set()
        self.replayed: set[int] = set()
        self._processes = mutation.processes
        self._slow = mutation.slow
        self._services: dict[str, list[Service]] = {}
        self._database: Path | None = None

    # Consumers.

    def _inbox(self) -> Inbox[Any] | None:
        """The inbox of all processes, if a version asks for one."""
        handlers = [
            one.registration.effects
            for version in (self.old, self.new)
            for one in version.contract.handlers.values()
        ]
        if Effects.EXACTLY_ONCE not in handlers:
            return None
        if self._database is None:
            self._database = Path(tempfile.mkdtemp())
            atexit.register(shutil.rmtree, self._database, ignore_errors=True)
        return Inbox(self._database / "app.db")

    async def start(self, version: Version) -> None:
        """Starts the consumers of a version, and with the old one those elsewhere."""
        services = self._services.setdefault(version.name, [])
        for process in range(self._processes):
            service = Service(version.config, inbox=self._inbox())
            handlers = [
                self._handler(spec, process) for file in version.files for spec in file.services
            ]
            if handlers:
                service.register(*handlers)
                await service.start()
                services.append(service)
        if version is self.old and self.elsewhere:
            await self.start(self.elsewhere[0])

    async def start_elsewhere(self) -> None:
        """Deploys the consumers elsewhere; those of a topic that moves go on until it is empty."""
        if not self.elsewhere:
            return
        before, after = self.elsewhere
        await self.start(after)
        subscriptions = after.contract.subscriptions.keys()
        if not subscriptions or subscriptions & before.contract.subscriptions.keys():
            self.failing_outputs.clear()
            await self.still()
            await self.stop(before)

    async def stop(self, version: Version) -> None:
        """Stops the consumers of a version."""
        for service in self._services.pop(version.name, ()):
            await service.stop()

    async def close(self) -> None:
        """Stops all consumers."""
        for services in self._services.values():
            for service in services:
                await service.stop()

    def _handler(self, spec: Any, process: int) -> Handler:
        methods = {method.handler: _method(self, method, process) for method in spec.methods}
        made: Handler = type(
            spec.name, (Handler,), {"__protoflow_spec__": spec, "__slots__": (), **methods}
        )()
        return made

    async def run(self, process: int, message: Any) -> None:
        """One run of a handler: fails, or notes what it handled."""
        n: int = message.n
        name = message.DESCRIPTOR.name
        if (n, name) in self.failing_outputs:
            raise RuntimeError("not yet")
        if n in self.failing and name != "OrderBilled":
            if not self._slow:
                raise RuntimeError("not yet")
            await asyncio.sleep(_SLOW)
        if n in self.failing_once and name != "OrderBilled":
            self.failing_once.discard(n)
            raise RuntimeError("once")
        if n in self.poisoned:
            raise DeadLetter("poison")
        self.done.append((n, "audit" if "Bill" in name else "orders", process))
        if name == "OrderPlaced" and n in self.sent and self._is_audited():
            self.outputs[n] = self._audits(self.sent[n].version)

    def _is_audited(self) -> bool:
        """Whether the old version publishes outputs, and consumers of them run."""
        return any("Bill" in event.message for event in self.old.contract.events.values()) and any(
            "OrderBilled" in type
            for services in self._services.values()
            for service in services
            for handler in service._components.registry.registrations
            for type in handler.types
        )

    def _audits(self, version: Version) -> int:
        """How often the output of a message of a version must be handled."""
        if not _broadcasts(version):
            return 1
        # Each process that runs; where a broadcast begins, each that gets it.
        counted = [
            one for one in (self.old, self.new) if _broadcasts(one) or not _broadcasts(self.new)
        ]
        return max(len(self._services.get(one.name, ())) for one in counted) or 1

    # Producers.

    async def publish(self, version: Version, *, final: bool = False) -> None:
        """Publishes for each key what the producers of a version publish, and waits.

        Of the orders placed those of one key fail until `release`, or once if the version is the
        new one. The first of another key is dead-lettered, and the output of the first of the third
        fails.
        """
        first = not self.sent
        async with Connection(version.config) as connection:
            for spec, topic in list(_published(version)):
                for key in KEYS:
                    sent = self._sent(version, spec, topic, key, final=final)
                    if sent.message == "OrderPlaced":
                        self._spoil(sent, first=first)
                    self.ids[await _send(connection, spec, sent)] = sent.n
        await self.still()

    def _spoil(self, sent: Sent, *, first: bool) -> None:
        is_old = sent.version.name == self.old.name
        if sent.key == 0:
            (self.failing if is_old else self.failing_once).add(sent.n)
        elif sent.key == 1 and first and not _broadcasts(sent.version):
            self.failing_outputs.add((sent.n, "OrderBilled"))
        elif sent.key == 2 and first:
            self.poisoned.add(sent.n)
            sent.refused = True

    def _sent(
        self, version: Version, spec: MessageSpec, topic: str, key: int, *, final: bool
    ) -> Sent:
        n = len(self.sent) + 1
        self.sent[n] = Sent(
            n=n,
            version=version,
            message=spec.message_class.DESCRIPTOR.name,
            key=key,
            topic=topic,
            final=final,
            expected=self._is_expected(version, spec.type, topic, final),
            foreign=spec.type == _FOREIGN,
        )
        return self.sent[n]

    def _is_expected(self, version: Version, type: str, topic: str, final: bool) -> bool:
        """Whether a message must be handled, or dead-lettered if nothing handles it."""
        if type == _FOREIGN:
            return final or _dead_letters_unhandled(self.old)
        if not any(version.contract.consumers(type, topic)):
            return False
        # What was there before and skipped is skipped until no old consumer runs.
        old = self.old.contract
        was_there = type == _LEGACY or (type, topic) in old.published
        return final or not was_there or any(old.consumers(type, topic))

    # Time.

    async def still(self) -> None:
        """Waits until nothing moves any more but messages that fail."""
        seen: object = None
        alike = 0
        while alike < _STILL:
            await asyncio.sleep(self.pause)
            now = await self.state()
            alike = alike + 1 if now == seen else 0
            seen = now

    async def settled(self) -> None:
        """Waits until the consumers that run have nothing left."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            await self.still()
            if not any(await self.lags()):
                return

    async def state(self) -> object:
        """What is alike while nothing moves but messages that fail."""
        return self._progress(), await self.lags()

    def _progress(self) -> tuple[int, int]:
        services = [service for services in self._services.values() for service in services]
        return len(self.done), sum(
            stats.unhandled for service in services for stats in service.stats().values()
        )

    async def lags(self) -> list[int]:
        """How much each subscription that runs has left."""
        found = []
        for services in self._services.values():
            for service in services:
                transport: Any = service._components.transport
                for one in service.subscriptions:
                    if not one.settings.broadcast:
                        lag = await transport.lag(one.settings.topic, one.settings.group)
                        found.append(lag.messages)
        return found

    async def age(self) -> None:
        """Makes what is there older than the retention."""

    def release(self) -> None:
        """From now on nothing fails."""
        self.failing.clear()
        self.failing_once.clear()
        self.failing_outputs.clear()
        self.poisoned.clear()

    async def replay(self, version: Version) -> None:
        """Replays the dead letters that a version knows of."""
        for service in self._services.get(version.name, [])[:1]:
            for topic in service.dead_letters.topics:
                await self.replay_topic(service.dead_letters, topic)
        await self.settled()

    async def replay_topic(self, dead_letters: Any, topic: str) -> None:
        """Replays a topic of dead letters, and notes whose order has a hole."""
        ids = []
        for record in await dead_letters.list(topic, limit=1000):
            sent = self.sent[self.ids[record.message.id]] if record.message.id in self.ids else None
            if sent is not None:
                sent.dead = True
            if sent is None or not sent.foreign:
                ids.append(record.message.id)
        if ids:
            await dead_letters.replay(topic, ids)
            self.replayed |= {self.ids[id] for id in ids if id in self.ids}

    # Accounts.

    def findings(self) -> Findings:
        """What was published and not handled, and what was handled out of order."""
        found = Findings()
        for n, sent in self.sent.items():
            done = {process for m, what, process in self.done if m == n and what == "orders"}
            if sent.foreign:
                if sent.expected and not sent.dead:
                    found.missing.append(f"{n} foreign")
            elif sent.expected and not done:
                found.missing.append(f"{n} {sent.message} of {sent.version.name}")
        audited: dict[int, set[int]] = {}
        for n, what, process in self.done:
            if what == "audit":
                audited.setdefault(n, set()).add(process)
        for n, times in sorted(self.outputs.items()):
            if len(audited.get(n, ())) < times:
                found.missing.append(f"output of {n}: {len(audited.get(n, ()))} of {times}")
        found.disorder += self._disorder()
        return found

    def _disorder(self) -> Iterator[str]:
        first: dict[int, int] = {}
        for position, (n, what, _) in enumerate(self.done):
            if what == "orders":
                first.setdefault(n, position)
        last: dict[object, int] = {}
        for n in sorted(first, key=first.__getitem__):
            sent = self.sent.get(n)
            if sent is None or not self._promised(sent):
                continue
            for lane in self._lanes(sent):
                if last.get(lane, 0) > n:
                    yield f"{n} of key {sent.key} after {last[lane]}"
                last[lane] = max(n, last.get(lane, 0))

    def _lanes(self, sent: Sent) -> list[object]:
        """Among which messages a message has its turn: those of its type, and those that share
        its group and its key in the version that published it."""
        key = 0 if _ordering(self.old) is Ordering.PER_PARTITION else sent.key
        home = _home(sent.version, sent.message)
        shipped = sent.message == "OrderShipped"
        return [(sent.message, key), (sent.version.name, home, shipped, key)]

    def _promised(self, sent: Sent) -> bool:
        """Whether the order of a message was promised."""
        before, after = _ordering(self.old), _ordering(self.new)
        if sent.refused or (sent.dead and not _blocks(sent.version)):
            return False
        if before is Ordering.NONE or not _is_keyed(self.old, sent.message):
            # What is promised from now on holds when no old consumer runs.
            return sent.final and after is not Ordering.NONE
        if _STRENGTH[after] < _STRENGTH[before]:
            return sent.version.name == self.old.name
        return True


_STRENGTH = {Ordering.NONE: 0, Ordering.PER_KEY: 1, Ordering.PER_PARTITION: 2}


def _dead_letters_unhandled(version: Version) -> bool:
    return any(
        handler.policy.unhandled is UnhandledTypes.DEAD_LETTER
        for handler in version.contract.handlers.values()
    )


def _is_keyed(version: Version, message: str) -> bool:
    spec = version.contract.messages.get(f"shop.v1.{message}")
    return spec is None or spec.partition_key is not None


def _home(version: Version, message: str) -> object:
    """What types must have in common for the order among them: a group and a field for the key."""
    return tuple(
        sorted(
            (
                handler.group,
                handler.registration.message and handler.registration.message.partition_key,
            )
            for handler in version.contract.handlers.values()
            if f"shop.v1.{message}" in handler.registration.types
        )
    )


def _published(version: Version) -> Iterator[tuple[MessageSpec, str]]:
    """What producers of a version publish to topics of orders, and what others publish there."""
    contract = version.contract
    topics = []
    for event in contract.events.values():
        if event.source == event.message and "Bill" not in event.message:
            yield contract.messages[event.message], event.topic
            topics.append(event.topic)
    for handler in contract.handlers.values():
        spec = handler.registration.message
        if _LEGACY in handler.registration.types and spec is not None:
            yield replace(spec, type=_LEGACY), handler.topic
    if _dead_letters_unhandled(version):
        yield replace(next(iter(contract.messages.values())), type=_FOREIGN), "orders"


async def _send(connection: Any, spec: MessageSpec, sent: Sent) -> str:
    message: Any = spec.message_class(order_id=f"o{sent.key}", n=sent.n)
    if "customer_id" in message.DESCRIPTOR.fields_by_name:
        message.customer_id = f"c{sent.key}"
    publication = PublicationSpec(topic=sent.topic, message=spec)
    [id] = await connection.publish_outputs(publication, [Output(message)])
    return str(id)


def _ordering(version: Version) -> Ordering:
    return next(
        (
            handler.policy.ordering
            for handler in version.contract.handlers.values()
            if "OrderPlaced" in handler.registration.types[0]
        ),
        Ordering.NONE,
    )


def _broadcasts(version: Version) -> bool:
    return any(h.registration.broadcast for h in version.contract.handlers.values())


def _blocks(version: Version) -> bool:
    return any(
        handler.policy.on_exhausted is OnExhausted.BLOCK
        for handler in version.contract.handlers.values()
    )


def _method(world: World, method: MethodSpec, process: int) -> Any:
    def output(message: Any) -> Any:
        if method.publication is None:
            return None
        made: Any = method.publication.message.message_class
        return made(order_id=message.order_id, n=message.n)

    if method.batched:

        async def run_batch(self: object, messages: Any, context: Context, /) -> None:
            for message in messages:
                await world.run(process, message)

        return run_batch
    if method.streams:

        async def stream(self: object, message: Any, context: Context, /) -> Any:
            await world.run(process, message)
            yield output(message)

        return stream

    async def run(self: object, message: Any, context: Context, /) -> Any:
        await world.run(process, message)
        return output(message)

    return run


class SqliteWorld(World):
    """Over a file."""

    async def age(self) -> None:
        """Makes what is there older than the retention, and deletes what is kept for nobody."""
        async with Connection(self.old.config) as connection:
            transport: Any = connection.transport
            await transport.worker.call(
                lambda database: database.execute(
                    "UPDATE protoflow_messages SET time = time - ?", [EIGHT_DAYS]
                )
            )
            await transport._clean()


class KafkaWorld(World):
    """Over Kafka, where a rebalance takes a moment."""

    pause = 0.25

    async def state(self) -> object:
        """Without the lag, which takes Kafka long."""
        return self._progress()

    async def settled(self) -> None:
        """Waits until the consumers that run have nothing left, replays included."""
        await super().settled()
        for _ in range(20):
            if self.replayed <= {n for n, _, _ in self.done}:
                break
            await asyncio.sleep(self.pause)
