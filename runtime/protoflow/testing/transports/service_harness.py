"""The harness of a service case: services, a publisher, and the dead letters of a group."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from protoflow.config.settings import Config
from protoflow.connection import Connection
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy
from protoflow.dead_letters import DeadLetters, dead_letters_of
from protoflow.output import Output
from protoflow.service.service import Service
from protoflow.testing.transports.harness import TransportHarness
from protoflow.testing.transports.processes import program_environment
from protoflow.testing.transports.tasks import ONCE, POLICY, Work, publication, task_handler
from protoflow.transport import Transport


class Runs:
    """Records runs; `work` fails the first `failures` times, then succeeds.

    Attributes:
        seen: the task and the attempt of every run, in order.
        done: the tasks whose run succeeded, in order.
    """

    def __init__(self, failures: int = 0) -> None:
        self.seen: list[tuple[str, int]] = []
        self.done: list[str] = []
        self._failures = failures

    async def work(self, task: StringValue, context: Context) -> None:
        """Handles one task."""
        self.seen.append((task.value, context.attempt))
        if context.attempt <= self._failures:
            raise ValueError(f"task {task.value} fails on purpose")
        self.done.append(task.value)


class ServiceHarness:
    """The services of one case, on a topic and a group that no other case uses."""

    def __init__(self, harness: TransportHarness, directory: Path) -> None:
        self.harness = harness
        self.topic = harness.topic("tasks")
        self.group = harness.group("workers")
        self.connection = Connection(self.config())
        self._log = directory / "worker.log"

    def settings(self, **settings: Any) -> dict[str, Any]:  # Any: as in Config
        """Returns the settings of a service as plain values."""
        target = self.harness.target
        return {
            "transport": target.url,
            "transport_options": dict(target.options),
            "lease": target.lease,
            "handle_signals": False,
            "shutdown_timeout": 10.0,
            **settings,
        }

    def config(self, **settings: Any) -> Config:  # Any: as in Config
        """Returns the configuration of a service."""
        return Config(environ={}, **self.settings(**settings))

    @asynccontextmanager
    async def running(
        self,
        work: Work,
        policy: DeliveryPolicy = POLICY,
        *,
        group: str | None = None,
        results: str | None = None,
        **settings: Any,  # Any: as in Config
    ) -> AsyncIterator[Service]:
        """Runs a service whose handler is `work`."""
        if not self.harness.capabilities.at_least_once:
            policy = ONCE
        service = Service(self.config(**settings))
        service.register(task_handler(work, self.topic, group or self.group, policy, results))
        async with asyncio.timeout(60 * self.harness.target.patience):
            await service.start()
        try:
            yield service
        finally:
            async with asyncio.timeout(60 * self.harness.target.patience):
                await service.stop()

    async def prepare(self) -> None:
        """Creates the topology, so that the group gets every message published from now on."""
        async with self.running(Runs().work):
            pass

    async def send(self, *tasks: str, key: str | None = None) -> list[str]:
        """Publishes tasks; returns their ids."""
        outputs = [Output(StringValue(value=task), key=key) for task in tasks]
        if not self.harness.target.confirms_when_settled:
            return await self.connection.publish_outputs(publication(self.topic), outputs)
        encode = self.connection.message_publisher.encode
        messages = [encode(publication(self.topic), output) for output in outputs]
        await self.harness.publish(*messages)
        return [message.id for message in messages]

    async def until(self, condition: Callable[[], object], *, within: float = 10.0) -> None:
        """Waits until the condition holds."""
        async with asyncio.timeout(within * self.harness.target.patience):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the transport."""
        return dead_letters_of(self.harness.transport)

    @property
    def dead_letter_topic(self) -> str:
        """The dead-letter topic of the group."""
        return self.harness.dead_letter_topic(self.topic, self.group)

    async def dead(self, count: int) -> None:
        """Waits until the group has this many dead letters."""
        async with asyncio.timeout(10 * self.harness.target.patience):
            while await self.dead_letters.count(self.dead_letter_topic) != count:
                await asyncio.sleep(0.05)

    async def kill_while_handling(self, **settings: Any) -> list[str]:  # Any: as in Config
        """Kills a process while its handler runs; returns what the handler logged."""
        if self.harness.target.crash is not None:
            return await self._crash_while_handling(self.harness.target.crash, **settings)
        options = {**self.harness.target.options, **self.harness.target.crash_options}
        order = {
            "settings": self.settings(transport_options=options, **settings),
            "topic": self.topic,
            "group": self.group,
            "log": str(self._log),
        }
        self._log.touch()
        command = ("-m", "protoflow.testing.transports.worker", json.dumps(order))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=program_environment()
        )
        try:
            await self.until(self._log.read_text, within=30)
        finally:
            process.kill()
            await process.wait()
        return self._log.read_text().splitlines()

    async def _crash_while_handling(
        self, crash: Callable[[Transport], object], **settings: Any
    ) -> list[str]:
        """Does the same on a transport that stores everything in the memory of one process."""
        log: list[str] = []

        async def work(task: StringValue, context: Context) -> None:
            log.append(f"{task.value} {context.attempt}")
            await asyncio.Event().wait()

        transport = await self.harness.connect()
        service = Service(self.config(**settings), transport=transport)
        service.register(task_handler(work, self.topic, self.group))
        await service.start()
        await self.until(lambda: log)
        crash(transport)
        return log
