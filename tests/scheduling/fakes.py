"""What the engine's components are tested with: a handler, jobs, a host and a settler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.contract.policy import resolve
from protoflow.contract.spec import DeliveryPolicy
from protoflow.errors import PublishError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.outcomes import DONE, Outcome
from protoflow.pipeline import HandlerSpec
from protoflow.registrations.registration import Registration
from protoflow.scheduling.job import Job, Route
from protoflow.stats.handlers import HandlerStats
from protoflow.transport.capabilities import Capabilities


class StillClock(Clock):
    """A clock that stands at a time, and whose randomness is zero."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def random(self) -> float:
        return 0.0


async def succeed(_delivery: Delivery, _context: Context) -> Outcome:
    return DONE


def spec_of(
    delivery: DeliveryPolicy | None = None, *, capabilities: Capabilities | None = None,
    decode: Callable[[Context], Any] = lambda context: context.message, **settings: Any,
) -> HandlerSpec:  # fmt: skip
    return HandlerSpec(
        name="shop.v1.Orders.Bill",
        topic="orders",
        group="billing",
        policy=resolve(delivery or DeliveryPolicy()),
        message=None,
        publication=None,
        dead_letter_topic="orders..billing..dead",
        batched=False,
        decode=decode,
        stats=HandlerStats(),
        config=Config(environ={}, **settings),
        capabilities=capabilities or Capabilities(),
        clock=StillClock(),
    )


def route_of(spec: HandlerSpec, run: Any = succeed, *, tombstones: bool = False) -> Route:
    registration = Registration(
        name=spec.name, topic=spec.topic, group=spec.group, call=run, tombstones=tombstones
    )
    return Route(spec, registration, run)


def message_of(id: str, **fields: Any) -> Message:
    return Message(**{"id": id, "topic": "orders", "payload": b"x", **fields})


def job_of(route: Route, id: str = "1", lane: Any = None, **fields: Any) -> Job:
    message = message_of(id, key=fields.pop("key", None))
    return Job(Delivery(message=message, position=id, **fields), message, route, lane)


class RecordingHost:
    """The engine, as outcomes are applied in it: it keeps what it is asked for."""

    def __init__(self) -> None:
        self.again: list[str] = []
        self.singly: list[str] = []
        self.ended: list[str] = []
        self.problems: dict[str, str] = {}
        self.paused: set[str] = set()
        self.given_back: list[str] = []

    def run_again(self, job: Job) -> None:
        self.again.append(job.message.id)

    def run_singly(self, jobs: Sequence[Job]) -> None:
        self.singly += [job.message.id for job in jobs]

    def end_turn(self, job: Job) -> None:
        self.ended.append(job.message.id)

    def settled_with(self, others: Sequence[Job]) -> None:
        self.ended += [job.message.id for job in others]

    def mark_unready(self, reason: str, detail: str | None) -> None:
        if detail is None:
            self.problems.pop(reason, None)
        else:
            self.problems[reason] = detail

    def pause_for(self, reason: str, paused: bool) -> None:
        (self.paused.add if paused else self.paused.discard)(reason)

    def escaped(self, error: BaseException, _job: Job, _context: Context) -> Outcome:
        raise error

    def cancelled(self, jobs: Sequence[Job]) -> None:
        self.given_back += [job.message.id for job in jobs]


class RecordingSettler:
    """Keeps settlements, and confirms outputs on request."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, Settlement]] = []
        self.published: list[list[Message]] = []
        self.confirm: list[Callable[[Any], None]] = []
        self.routes = None

    def settle(self, job: Job, settlement: Settlement) -> None:
        self.settled.append((job.message.id, settlement))
        if job.after is not None:
            job.after(SettleResult.DONE)

    def settle_together(self, jobs: Sequence[Job], settlements: Sequence[Settlement]) -> None:
        for job, settlement in zip(jobs, settlements, strict=True):
            self.settle(job, settlement)

    def publish(
        self, _job: Job, messages: Sequence[Message], confirmed: Callable[[Any], None]
    ) -> None:
        self.published.append(list(messages))
        self.confirm.append(confirmed)

    def publish_retry(self, job: Job, message: Message, confirmed: Callable[[Any], None]) -> None:
        self.publish(job, (message,), confirmed)

    def take(self, _wanted: Any) -> tuple[list[Job], list[Job]]:
        return [], []

    @property
    def acknowledged(self) -> list[str]:
        return [id for id, settlement in self.settled if settlement.action == 0]


class RecordingSubmitter:
    """Publishes dead letters: each call takes the next answer; without one all is confirmed."""

    def __init__(self) -> None:
        self.answers: list[PublishError | None] = []
        self.published: list[Message] = []

    async def publish_shielded(self, messages: Sequence[Message]) -> list[PublishError | None]:
        await asyncio.sleep(0)
        self.published += messages
        return [self.answers.pop(0) if self.answers else None]
