"""What must be true when hostile messages lie among good ones.

Every good message is handled once, in the order of its key; the process lives and is ready, also
after a restart; each hostile one is accounted for: handled, skipped and counted, or dead-lettered.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import ProtoflowError
from protoflow.outcomes import Unprocessable
from protoflow.service import Service

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, handler
from tests.hostile.table import Hostile, Special, Text
from tests.hostile.writers import Parcel, Writer

#: The subscriptions: topic, group and the handler whose counters have what was skipped.
SUBSCRIPTIONS = {
    "keyed": ("tasks", "suite.v1.Keyed.Keyed"),
    "workers": ("tasks", "suite.v1.Work.Work"),
    "mixed": ("mixed", "suite.v1.Mixed.OnTask"),
    "blue-reports": ("reports.eu", "suite.v1.Reports.OnReport"),
    "things": ("things", "suite.v1.Things.OnThing"),
    "notes": ("notes", "notes"),
}
KEYS = 5
#: How many of one kind of wrong are reported.
SHOWN = 4
_JSON = {"content-type": "application/json"}
_POLICY = DeliveryPolicy(
    retry=RetryPolicy(max_attempts=2, initial_backoff=0.01, max_backoff=0.02, jitter=0.0)
)


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


@dataclass
class Ledger:
    """What the handlers saw: numbers above 0 are good, below hostile, 0 is unknown."""

    runs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    ended: dict[str, list[int]] = field(default_factory=dict)

    def note(self, group: str, number: int, context: Any) -> None:
        self.runs.setdefault(group, []).append((number, context.attempt))

    def end(self, group: str, number: int) -> None:
        self.ended.setdefault(group, []).append(number)

    def good(self, group: str) -> list[int]:
        return [number for number in self.ended.get(group, ()) if number > 0]

    def hostile(self, group: str) -> int:
        return sum(number <= 0 for number in self.ended.get(group, ()))


class Judge:
    """One trial."""

    def __init__(self, harness: Harness, writer: Writer, rows: Sequence[Hostile]) -> None:
        self.harness = harness
        self.writer = writer
        self.rows = rows
        self.ledger = Ledger()
        #: Good numbers by topic, in the order in which they were written, and their keys.
        self.good: dict[str, list[int]] = {}
        self.keys: dict[int, bytes] = {}
        #: After which hostile row a good number was written.
        self.after: dict[int, str] = {}
        self.taken: Counter[str] = Counter()
        self.refused: list[str] = []
        self.must_be_handled: dict[int, str] = {}
        self._count = 0
        #: What was skipped before the restart: counters begin anew.
        self._before: dict[str, int] = {}

    async def trial(self, *, within: float) -> None:
        """The whole of it. Raises AssertionError, with everything that is wrong."""
        async with self._running():
            pass
        await self.writer.open()
        try:
            await self._write_all()
            wrongs = await self._with_them(within) or await self._after_a_restart()
            wrongs += await self.writer.wrongs()
        finally:
            await self.writer.close()
        assert not wrongs, "\n".join(wrongs)

    async def _with_them(self, within: float) -> list[str]:
        try:
            async with self._running() as service:
                await self._come_to_rest(service, within)
                await self._second_wave(service)
                self._before = self._skipped(service)
                return await self._wrongs(service, "with them")
        except (ProtoflowError, TimeoutError) as error:
            return [f"with them: {type(error).__name__}: {error}"]

    async def _after_a_restart(self) -> list[str]:
        try:
            async with self._running() as service:
                await self._second_wave(service)
                await self.harness.quiet(0.2)
                return await self._wrongs(service, "after a restart")
        except (ProtoflowError, TimeoutError) as error:
            return [f"after a restart: {type(error).__name__}: {error}"]

    # Writing.

    async def _write_all(self) -> None:
        for index, row in enumerate(self.rows, start=1):
            await self._write_good(row.topic)
            parcel = self._hostile(row, -index)
            if await self.writer.write(parcel):
                self.taken[row.topic] += 1
                if row.handled:
                    self.must_be_handled[-index] = row.name
            else:
                self.refused.append(row.name)
            await self._write_good(row.topic, after=row.name)

    async def _write_good(self, topic: str, after: str = "the start") -> None:
        self._count += 1
        number = self._count
        key = b"k%d" % (number // 2 % KEYS)
        metadata, payload = valid(topic, number, key)
        parcel = Parcel(
            topic=self.harness.physical(topic), id=uuid.uuid4().hex, key=key, metadata=metadata,
            payload=payload,
        )  # fmt: skip
        assert await self.writer.write(parcel), f"a good message after {after!r} was not taken"
        self.good.setdefault(topic, []).append(number)
        self.keys[number] = key
        self.after[number] = after

    def _hostile(self, row: Hostile, number: int) -> Parcel:
        key = row.key if row.key is not None else b"k%d" % ((self._count + 1) // 2 % KEYS)
        payload: bytes | None
        metadata, payload = valid(row.topic, number, key if row.key is None else b"k")
        metadata.update({name: self._filled(value) for name, value in row.metadata.items()})
        for name, value in row.metadata.items():
            if value is None:
                metadata.pop(name, None)
        if row.payload is Special.AT_LIMIT:
            payload = b"\xff" * self.writer.limit
        elif not isinstance(row.payload, Special):
            payload = row.payload
        return Parcel(
            topic=self.harness.physical(row.topic),
            id=f"h{-number}-{uuid.uuid4().hex[:8]}", key=key,
            metadata=metadata, payload=payload, row=row,
        )  # fmt: skip

    def _filled(self, value: Text | None) -> Text:
        if not isinstance(value, str) or "{" not in value:
            return value or ""
        return (
            value.replace("{group}", self.harness.physical("keyed"))
            .replace("{topic}", self.harness.physical("tasks"))
            .replace("{dead_letter}", self.harness.dead_letter_topic("tasks", "keyed"))
        )

    # Reading.

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Service]:
        service = self._service()
        async with asyncio.timeout(60):
            await service.start()
        try:
            yield service
        finally:
            async with asyncio.timeout(30):
                await service.stop()

    def _service(self) -> Service:
        ledger = self.ledger

        def noting(group: str, number: Callable[[Any], int]) -> Callable[..., Any]:
            async def call(message: Any, context: Any) -> None:
                ledger.note(group, number(message), context)
                ledger.end(group, number(message))

            return call

        async def notes(value: Any, context: Any) -> None:
            number = value.get("number") if isinstance(value, dict) else None
            number = number if type(number) is int and abs(number) < 2**31 else 0
            ledger.note("notes", number, context)
            if number <= 0:  # the text of the error is the sender's
                raise Unprocessable(f"strange note {json.dumps(value)[:300]} {value!r:.300}")
            ledger.end("notes", number)

        class Mixed(pf.MixedHandler):  # type: ignore[misc]  # generated while the suite runs
            async def on_task(self, message: Any, context: Any, /) -> None:
                await noting("mixed", lambda task: task.number)(message, context)

            async def on_remark(self, message: Any, context: Any, /) -> None:
                await noting("mixed", lambda remark: 0)(message, context)

        service = self.harness.service(
            handler("Keyed", noting("keyed", lambda task: task.number)),
            handler("Work", noting("workers", lambda task: task.number)),
            Mixed(),
            handler("Reports", noting("blue-reports", lambda report: report.id)),
            handler("Things", noting("things", lambda thing: _number(thing.name))),
            policy=_POLICY,
            variables={"region": "eu", "team": "blue"},
            log_payloads=True,
        )
        service.register_json_handler("notes", "notes", notes, delivery=_POLICY)
        return service

    async def _come_to_rest(self, service: Service, within: float) -> None:
        """Waits until everything good is handled and everything hostile is accounted for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while loop.time() < deadline:
            if not service.health().live:
                return
            if not self._missing():
                found = await asyncio.gather(*map(self._dead_letters, SUBSCRIPTIONS))
                counts = dict(zip(SUBSCRIPTIONS, found, strict=True))
                if all(
                    self._accounted(service, group, counts[group]) >= self.taken[topic]
                    for group, (topic, _) in SUBSCRIPTIONS.items()
                ):
                    break
            await asyncio.sleep(0.1)
        await self.harness.quiet(0.1)

    async def _second_wave(self, service: Service) -> None:
        """Good messages by the runtime's own producer."""
        for topic, _ in set(SUBSCRIPTIONS.values()):
            self._count += 1
            number = self._count
            key = b"k%d" % (number % KEYS)
            metadata, payload = valid(topic, number, key)
            known = {name: str(value) for name, value in metadata.items()}
            await self.harness.publish(topic, payload, key=key, metadata=known)
            self.good.setdefault(topic, []).append(number)
            self.keys[number] = key
            self.after[number] = "everything"
        deadline = asyncio.get_running_loop().time() + 10
        while self._missing() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)

    async def _dead_letters(self, group: str) -> int:
        topic, _ = SUBSCRIPTIONS[group]
        where = self.harness.dead_letter_topic(topic, group)
        return len(await self.harness.dead_letters.list(where, limit=10_000))

    def _skipped(self, service: Service) -> dict[str, int]:
        stats = service.stats()
        return {
            group: sum(
                getattr(stats[name], counter)
                for counter in ("unhandled", "tombstones", "skipped", "dropped")
                for name in ([first] if group != "mixed" else [first, "suite.v1.Mixed.OnRemark"])
            )
            for group, (_, first) in SUBSCRIPTIONS.items()
        }

    def _accounted(self, service: Service, group: str, dead_letters: int) -> int:
        return self.ledger.hostile(group) + self._skipped(service)[group] + dead_letters

    def _missing(self) -> dict[str, set[int]]:
        missing = {
            group: set(self.good.get(topic, ())) - set(self.ledger.good(group))
            for group, (topic, _) in SUBSCRIPTIONS.items()
        }
        return {group: numbers for group, numbers in missing.items() if numbers}

    async def _wrongs(self, service: Service, when: str) -> list[str]:
        """Everything that is not as it must be."""
        wrongs = []
        health = service.health()
        if not health.live:
            wrongs.append(f"{when}: the service died")
        if not health.ready:
            wrongs.append(f"{when}: not ready: {health.problems}")
        for group, numbers in self._missing().items():
            first = min(numbers)
            wrongs.append(
                f"{when}: {group}: {len(numbers)} good messages were not handled, the first is "
                f"{first}, after {self.after[first]!r}"
            )
        wrongs += self._repeated() + self._out_of_order() + self._not_handled(when)
        skipped = self._skipped(service)
        for group, (topic, _) in SUBSCRIPTIONS.items():
            dead_letters = await self._dead_letters(group)
            passed = skipped[group] + (self._before[group] if when != "with them" else 0)
            total = self.ledger.hostile(group) + passed + dead_letters
            if total != self.taken[topic]:
                wrongs.append(
                    f"{when}: {group}: {self.taken[topic]} hostile messages, {total} accounted "
                    f"for: {self.ledger.hostile(group)} handled, {passed} skipped, "
                    f"{dead_letters} dead letters"
                )
        return wrongs

    def _repeated(self) -> list[str]:
        wrongs = []
        for group in SUBSCRIPTIONS:
            counts = Counter(number for number, _ in self.ledger.runs.get(group, ()) if number > 0)
            wrongs += [
                f"{group}: good message {number} ran {count} times, after {self.after[number]!r}"
                for number, count in counts.items()
                if count > 1
            ][:SHOWN]
        return wrongs

    def _out_of_order(self) -> list[str]:
        wrongs = []
        for key in sorted(set(self.keys.values())):
            numbers = [n for n in self.ledger.good("keyed") if self.keys[n] == key]
            if numbers != sorted(numbers):
                wrongs.append(f"keyed: key {key!r} came out of order")
        return wrongs

    def _not_handled(self, when: str) -> list[str]:
        """Rows with nothing but forged state, which is dropped: the handler gets the message."""
        wrongs = []
        for group in ("keyed", "workers", "things"):
            first: dict[int, int] = {}
            for number, attempt in self.ledger.runs.get(group, ()):
                first.setdefault(number, attempt)
            topic, _ = SUBSCRIPTIONS[group]
            for number, name in self.must_be_handled.items():
                if self.rows[-number - 1].topic != topic or group == "things":
                    continue
                found = first.get(number)
                if found != 1:
                    what = "not handled" if found is None else f"handled as attempt {found}"
                    wrongs.append(f"{when}: {group}: {name!r} was {what}")
        return [*wrongs[:SHOWN], f"{when}: {len(wrongs)} like these"] if wrongs else []


def valid(topic: str, number: int, key: bytes) -> tuple[dict[str, Text], bytes]:
    """A message that the topic's handlers can read."""
    name = key.decode(errors="replace")
    if topic in ("tasks", "mixed"):
        metadata: dict[str, Text] = {
            "ce_type": "suite.v1.Task", "content-type": "application/protobuf",
        }  # fmt: skip
        return metadata, pb.Task(number=number, key=name, secret="s3cret").SerializeToString()
    if topic == "things":
        metadata = {"ce_type": "suite.v1.Thing", "content-type": "application/protobuf"}
        return metadata, pb.Thing(name=str(number), password="s3cret").SerializeToString()
    if topic == "reports.eu":
        return {"ce_type": "suite.report.v1", **_JSON}, json.dumps({"id": str(number)}).encode()
    return {**_JSON}, json.dumps({"number": number}).encode()
