"""Replays in this process: services on one log, and what the command prints."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from protoflow import Config, Service
from protoflow.cli.replay.session import Options, replay
from protoflow.connection import Connection
from protoflow.contract.spec import Start
from protoflow.ids import new_id
from protoflow.message import Message
from protoflow.transport import LagReader, TopicReader, Topology, TopologyMode

from tests.acceptance.contract import pb, pf
from tests.cli import schemas

TASKS, DONE = "tasks", "done"


def no_question(_handler: str, _topic: str) -> None:
    """Takes the place of the question before outputs are published."""


@dataclass
class Report:
    """What a replay printed with --json.

    Attributes:
        code: the exit code.
        lines: the lines before the summary.
        summary: the last line.
    """

    code: int
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def counts(self, version: int = 0) -> dict[str, int]:
        """The counts of a version that are not 0, without its outputs."""
        found = self.summary["versions"][version]
        return {
            name: count
            for name, count in found.items()
            if count and name not in ("service", "handler", "outputs")
        }

    @property
    def differences(self) -> dict[str, list[tuple[str, Any, Any]]]:
        """Path, old and new value of each difference, by message id."""
        return {
            line["id"]: [(each["path"], each["old"], each["new"]) for each in line["differences"]]
            for line in self.lines
            if line["kind"] == "difference"
        }


@dataclass
class Log:
    """A log with messages, and services that handle them.

    Attributes:
        url: the broker.
        capsys: reads what the command prints.
        namespace: keeps runs on one broker apart.
    """

    url: str
    capsys: pytest.CaptureFixture[str]
    namespace: str = field(default_factory=lambda: f"replay-{uuid.uuid4().hex[:8]}")

    def config(self, **settings: Any) -> Config:
        """Settings that only name the broker."""
        return Config(environ={}, transport=self.url, namespace=self.namespace, **settings)

    def topic(self, name: str) -> str:
        """The physical name of a topic."""
        return f"{self.namespace}..{name}"

    def service(self, *handlers: Any, **settings: Any) -> Service:
        """A service that is not started."""
        config = self.config(**settings.pop("config", {}))
        made = Service(config, **settings)
        made.register(*handlers)
        return made

    async def begin(self, *handlers: Any, **settings: Any) -> None:
        """Makes topics and groups, as the first start of the service does."""
        async with self.service(*handlers, **settings):
            pass

    async def publish(self, tasks: Iterable[Any]) -> list[str]:
        """Publishes tasks; returns their ids."""
        async with Connection(self.config()) as connection:
            found: list[str] = await pf.SuiteEventProducer(connection).publish_task_many(tasks)
            return found

    async def publish_raw(self, *payloads: bytes | None, **metadata: str) -> None:
        """Publishes messages as they are."""
        async with Connection(self.config()) as connection:
            for payload in payloads:
                topic = self.topic(TASKS)
                message = Message(id=new_id(), topic=topic, payload=payload, metadata=metadata)
                await connection.publish(message)

    async def read(self, topic: str = DONE) -> list[Any]:
        """The messages of a topic."""
        async with Connection(self.config()) as connection:
            transport = connection.transport
            assert isinstance(transport, TopicReader)
            await transport.ensure(Topology(topics=(self.topic(topic),)), TopologyMode.CREATE)
            records = transport.read_topic(self.topic(topic), start=Start.EARLIEST)
            return [record async for record in records]

    async def waiting(self, group: str) -> int:
        """How many tasks a group has not handled."""
        async with Connection(self.config()) as connection:
            assert isinstance(connection.transport, LagReader)
            lag = await connection.transport.lag(self.topic(TASKS), f"{self.namespace}..{group}")
            return lag.messages

    async def replay(self, *services: Service, **given: Any) -> Report:
        """Runs the command."""
        targets = ["old", "new"][: len(services)]
        options: dict[str, Any] = {
            "topic": TASKS, "targets": targets, "handler": None, "start": Start.EARLIEST,
            "end": None, "number": None, "shadow": len(services) > 1, "masks": (),
            "reprocess": False, "stops": len(services) == 1 and not given.get("shadow"),
            "concurrency": None, "without": (), "as_json": True, "confirm": no_question,
        }  # fmt: skip
        self.capsys.readouterr()
        code = await replay(services, Options(**options | given))
        out = self.capsys.readouterr().out
        schemas.validate(["replay"], out)
        *lines, summary = map(json.loads, out.splitlines())
        return Report(int(code), lines, summary)


def tasks(count: int) -> list[Any]:
    """Tasks of ten keys."""
    return [pb.Task(number=number, key=f"k{number % 10}") for number in range(count)]


def numbers(records: Iterable[Any]) -> list[int]:
    """The numbers of messages of the type Done."""
    return [pb.Done.FromString(record.message.payload).number for record in records]


def transform(
    done: Callable[[Any], Any] = lambda task: pb.Done(number=task.number, key=task.key),
) -> Any:
    """A handler that publishes what the function returns."""

    class Transform(pf.TransformHandler):  # type: ignore[misc]  # made at import
        async def transform(self, task: Any, context: Any, /) -> Any:
            return done(task)

    return Transform()
