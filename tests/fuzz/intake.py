"""Intake, decoding, handling, redaction and dead letters, over deliveries in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from protoflow.config import Config
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.message import Delivery
from protoflow.outcomes import RetryAfter, Skip, Unprocessable
from protoflow.service import Service

from tests.acceptance.contract import pf
from tests.acceptance.harness import handler
from tests.fuzz.generate import SECRET, TOPICS, Generator
from tests.fuzz.script import Script

BATCH = 250
#: Seconds of CPU for a batch; a tenth of a second is usual.
PATIENCE = 4.0
#: Turns of the event loop without a settlement after which a batch is stuck. Turns, because a
#: busy machine makes them longer, for the service as for the test.
IDLE_TURNS = 2000
_VARIABLES = {"region": "eu", "team": "blue"}
_POLICY = DeliveryPolicy(
    retry=RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.002, jitter=0.0)
)
_LOGGERS = ("protoflow", "protoflow.messages")
_STANDARD = vars(logging.makeLogRecord({})).keys()
#: Of the fields of a delivery, those that this version has.
_DELIVERY = {item.name for item in dataclasses.fields(Delivery)}


@dataclass
class Report:
    """What was found; each with the first batch that showed it.

    Attributes:
        messages: how many were tried.
        runs: how often a handler ran.
        crashes: the process died.
        foreign: errors that are not Protoflow's, out of a decoder.
        stuck: messages that were never settled.
        wrong: settled twice, run again after success, given back, no outcome.
        hot: the loop turned and nothing happened.
        leaks: jobs, tasks or objects that stayed.
        shown: secrets or line breaks in what people read.
    """

    messages: int = 0
    runs: int = 0
    seconds: float = 0.0
    crashes: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    stuck: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    hot: Counter[str] = field(default_factory=Counter)
    leaks: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    where: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, text: str, where: str) -> None:
        getattr(self, kind)[text] += 1
        self.where.setdefault(text, where)

    @property
    def findings(self) -> list[str]:
        return [
            f"{kind}: {text} ({count} times, first in {self.where.get(text, '?')})"
            for kind in ("crashes", "foreign", "stuck", "wrong", "hot", "leaks", "reported")
            for text, count in getattr(self, kind).most_common(20)
        ]

    def lines(self) -> list[str]:
        """The report, for people."""
        names = ("crashes", "foreign", "stuck", "wrong", "hot", "leaks", "reported")
        counts = ", ".join(f"{name} {sum(getattr(self, name).values())}" for name in names)
        head = f"{self.messages:,} messages, {self.runs:,} runs, {self.seconds:.0f} s: {counts}"
        return [head, *self.findings]


class _Listening(logging.Handler):
    """Reads what is logged: no secrets, and one line for each record."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.where = ""
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        shown = f"{text} {fields}"
        if SECRET in shown or SECRET.encode().hex() in shown:
            at = shown.find(SECRET)
            near = shown[max(0, at - 40) : at]
            self._report.add("reported", f"a secret in {record.name} after {near!r}", self.where)
        first, *more = text.split("\n")
        controls = any(
            ord(one) < 32 or 0xD800 <= ord(one) < 0xE000 for one in "".join([first, *more])
        )
        if controls or any(not line.startswith("  ") for line in more):
            what = f"control characters in {record.name}: {str(record.msg)[:50]}"
            self._report.add("reported", what, self.where)


@contextmanager
def _listening(report: Report) -> Iterator[_Listening]:
    listening = _Listening(report)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    loggers[0].addHandler(listening)
    loggers[0].propagate = False
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield listening
    finally:
        loggers[0].removeHandler(listening)
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate


class Intake:
    """A service over a scripted transport, given random messages until it breaks."""

    def __init__(self, seed: int, report: Report) -> None:
        self._seed = seed
        self._report = report
        self._ended: dict[int, int] = {}
        self._script: Script
        self._service: Service

    async def run(self, messages: int, *, first: int = 0) -> None:
        """So many messages, or until nothing more can be learnt."""
        sizes: list[int] = []
        with _listening(self._report) as listening:
            await self._start()
            try:
                for number in range(first, first + -(-messages // BATCH)):
                    listening.where = f"seed {self._seed}, batch {number}"
                    if not await self._batch(number, listening.where):
                        await self._restart()
                    if number % 100 == 50:
                        gc.collect()
                        sizes.append(len(gc.get_objects()))
            finally:
                await self._stop()
        self._look_at_sizes(sizes)

    async def _start(self) -> None:
        self._script = Script()
        self._service = self._make()
        await self._service.start()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(20):
                await self._service.stop()
        except Exception as error:
            self._report.add("crashes", f"stop: {error!r:.120}", f"seed {self._seed}")

    async def _restart(self) -> None:
        await self._stop()
        await self._start()

    def _make(self) -> Service:
        class Mixed(pf.MixedHandler):  # type: ignore[misc]  # generated when it runs
            async def on_task(_, message: Any, context: Any, /) -> None:  # noqa: N805
                await self._handle(message, context)

            async def on_remark(_, message: Any, context: Any, /) -> None:  # noqa: N805
                await self._handle(message, context)

        config = Config(
            environ={}, transport="memory://fuzz", defaults=_POLICY, log_payloads=True,
            handle_signals=False, shutdown_timeout=2.0, variables=_VARIABLES,
            retry_in_place=0.01, retry_ladder=(0.01,),
        )  # fmt: skip
        # Handlers are methods of this object: the service is made anew after a crash.
        service = Service(config, transport=self._script)
        names = ("Keyed", "Things", "Reports", "Strict")
        service.register(*(handler(name, self._handle) for name in names), Mixed())
        service.register_json_handler("notes", "notes", self._handle, delivery=_POLICY)
        return service

    async def _handle(self, message: Any, context: Any) -> None:
        self._report.runs += 1
        delivery = context.delivery
        choice = zlib.crc32(context.message.payload or b"") % 16
        if choice < 3:
            raise ValueError(_quoted(message, choice))
        if choice == 3:
            raise KeyError(context.metadata.get("ce_subject"))
        if choice == 4:
            raise Unprocessable(_quoted(message, 0))
        if choice == 5:
            raise Skip(str(context.metadata)[:300])
        if choice == 6:
            raise RetryAfter(0.001, _quoted(message, 1))
        if choice == 7:
            await asyncio.sleep(0)
        self._ended[id(delivery)] = self._ended.get(id(delivery), 0) + 1

    async def _batch(self, number: int, where: str) -> bool:
        """Whether the service can be used on."""
        self._ended.clear()
        self._script.published.clear()
        given: dict[str, list[Delivery]] = {}
        for name, subscription in self._script.subscriptions.items():
            topic, _, group = name.partition("/")
            generator = Generator(self._seed, number * 16 + len(given), group)
            count = BATCH // len(self._script.subscriptions)
            given[name] = [self._delivery(generator, topic, at) for at in range(count)]
            subscription.settled.clear()
            subscription.returned.clear()
            subscription.calls = 0
            subscription.give(given[name])
            self._report.messages += count
        before = time.process_time()
        unsettled = await self._settled(given)
        spent = time.process_time() - before
        return self._judge(given, unsettled, spent, where)

    def _delivery(self, generator: Generator, topic: str, number: int) -> Delivery:
        assert topic in TOPICS
        message = generator.message(topic, number)
        fields: dict[str, Any] = {
            "message": message,
            "deliveries": 1,
            "shard": generator.below(3),
            "position": number,
            "time": time.time(),
            "size": 100 + len(message.payload or b""),
        }
        if "unreadable" in _DELIVERY and generator.chance(0.02):
            fields["unreadable"] = generator.text() or "it is not"
        return Delivery(**fields)

    async def _settled(self, given: dict[str, list[Delivery]]) -> list[tuple[str, Delivery]]:
        """What is not settled when nothing has moved for many turns."""
        idle, before = 0, -1
        while idle < IDLE_TURNS and self._service.health().live:
            left = [
                (name, delivery)
                for name, deliveries in given.items()
                for delivery in deliveries
                if id(delivery) not in self._script.subscriptions[name].settled
            ]
            if not left and all(one.settled for one in self._service.subscriptions):
                return []
            idle = idle + 1 if len(left) == before else 0
            before = len(left)
            await asyncio.sleep(0.002)
        return left

    def _judge(
        self, given: dict[str, list[Delivery]], unsettled: list[tuple[str, Delivery]],
        spent: float, where: str,
    ) -> bool:  # fmt: skip
        report = self._report
        crash = self._service._components.running.crash
        if crash is not None:
            report.add("crashes", f"{type(crash).__name__}: {_place(crash)}", where)
        elif unsettled:
            for name, delivery in unsettled[:3]:
                names = sorted(name for name in delivery.message.metadata if name[:3] == "pf_")
                report.add("stuck", f"{name}: beside {', '.join(names) or 'nothing'}", where)
        for name, deliveries in given.items():
            self._judge_each(name, deliveries, where)
        calls = sum(one.calls for one in self._script.subscriptions.values())
        if calls > 20 * BATCH or spent > PATIENCE * 0.8:
            report.add("hot", f"{calls} calls, {spent:.1f} s of CPU for {BATCH} messages", where)
        self._look_at_dead_letters(where)
        held = sum(one.in_flight.count for one in self._service.subscriptions)
        if held and crash is None and not unsettled:
            report.add("leaks", f"{held} jobs in flight, all of them settled", where)
        return crash is None and not unsettled

    def _judge_each(self, name: str, deliveries: list[Delivery], where: str) -> None:
        subscription = self._script.subscriptions[name]
        for delivery in deliveries:
            if subscription.settled.get(id(delivery), 0) > 1:
                self._report.add("wrong", f"{name}: settled twice", where)
            if self._ended.get(id(delivery), 0) > 1:
                self._report.add("wrong", f"{name}: run again after success", where)
        for _, delay in subscription.returned:
            self._report.add("wrong", f"{name}: given back, for {delay:.0f} s", where)

    def _look_at_dead_letters(self, where: str) -> None:
        for dead_letter in self._script.published:
            text = dead_letter.metadata.get("pf_error_message", "")
            if dead_letter.metadata.get("pf_error_class") == "stub":
                error = dead_letter.metadata.get("pf_error_type")
                self._report.add("wrong", f"the outcome was not applied: {error}", where)
            if SECRET in text or SECRET.encode().hex() in text:
                self._report.add(
                    "reported", f"a secret in a dead letter of {dead_letter.topic}", where
                )

    def _look_at_sizes(self, sizes: list[int]) -> None:
        # The first are from before caches are full.
        if len(sizes) >= 6 and sizes[-1] > sizes[2] * 1.1 + 5_000:
            text = f"{sizes[2]} objects became {sizes[-1]} over {len(sizes) * 100} batches"
            self._report.add("leaks", text, f"seed {self._seed}")


def _quoted(message: Any, form: int) -> str:
    """As handlers quote what they were given."""
    if isinstance(message, dict) and form:
        message = next(iter(message.values()), "")
    if isinstance(message, dict | list | str | int | float | None):
        return f"unknown customer {message}"[:3000]
    return (str(message), repr(message), f"bad: {getattr(message, 'password', message)!r}")[form]


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return str(error)[:60]
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]} in {code.co_name}"
