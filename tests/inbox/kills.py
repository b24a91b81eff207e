"""Kills a service again and again, and counts its effects: `python -m tests.inbox.kills`.

One process forks the services, so that a kill costs no start of Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Config, Inbox, Output, Service
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.database import Dialect
from protoflow.outbox import schema
from protoflow.scheduling.exactly_once import ExactlyOnce

from tests.inbox.harness import handler
from tests.middleware.harness import TO_DONE, TO_WORK

#: A service that is killed after a COMMIT dies after so many of them at most.
_COMMITS = 20
_PATIENCE = 60.0


class Trial:
    """A queue, a database, and services that are killed.

    Args:
        transport: the URL of the queue.
        database: the URL of PostgreSQL, or the path of a SQLite file.
        messages: how many are published.
    """

    def __init__(self, transport: str, database: str, messages: int, namespace: str) -> None:
        self._database = database
        self._messages = messages
        self._config = Config(
            environ={}, transport=transport, lease=1.0, handle_signals=False,
            retry_in_place=60.0, namespace=namespace,
        )  # fmt: skip

    async def prepare(self) -> None:
        """Makes the tables and publishes the messages."""
        async with self._resource() as resource:
            await self._create(resource)
            async with self._service(resource):  # so the group is there
                pass
        config = self._config
        async with Service(config) as service:
            outputs = [Output(StringValue(value=str(n))) for n in range(self._messages)]
            await service.publish_outputs(TO_WORK, outputs)

    async def consume(self, commits: int | None, done: Callable[[int], bool]) -> None:
        """Handles messages. With a number the process kills itself after so many COMMITs."""
        if commits is not None:
            _die_after(commits)
        async with self._resource() as resource, self._service(resource):
            while not done(await self.effects(resource)):
                await asyncio.sleep(0.05)

    async def found(self) -> dict[str, int]:
        """Counts effects and outputs, and those that are not there once."""
        async with self._resource() as resource:
            counts: dict[str, int] = {}
            for name, query in (
                ("effects", "SELECT count(*) FROM effects"),
                ("distinct_effects", "SELECT count(DISTINCT text) FROM effects"),
                ("outputs", "SELECT count(*) FROM protoflow_outbox"),
                ("distinct_outputs", "SELECT count(DISTINCT id) FROM protoflow_outbox"),
                ("noted", "SELECT count(*) FROM protoflow_inbox"),
            ):
                counts[name] = await self._value(resource, query)
            return counts

    async def effects(self, resource: Any) -> int:
        """How many there are."""
        return await self._value(resource, "SELECT count(*) FROM effects")

    @contextlib.asynccontextmanager
    async def _resource(self) -> Any:
        if "://" not in self._database:
            yield self._database
            return
        async with asyncpg.create_pool(self._database, min_size=1, max_size=4) as pool:
            yield pool

    async def _create(self, resource: Any) -> None:
        dialect: Dialect = "sqlite" if resource is self._database else "postgresql"
        for statement in ("CREATE TABLE effects (text TEXT)", *schema(dialect).split(";\n")):
            if statement.strip():
                await self._execute(resource, statement)

    async def _execute(self, resource: Any, statement: str) -> None:
        if isinstance(resource, str):
            with sqlite3.connect(resource) as connection:
                connection.execute(statement)
            connection.close()
        else:
            await resource.execute(statement)

    async def _value(self, resource: Any, query: str) -> int:
        if not isinstance(resource, str):
            return int(await resource.fetchval(query))
        with contextlib.closing(sqlite3.connect(resource, timeout=30)) as connection:
            return int(connection.execute(query).fetchone()[0])

    @contextlib.asynccontextmanager
    async def _service(self, resource: Any) -> Any:
        inbox: Inbox[Any] = Inbox(resource)

        async def work(message: StringValue, context: Any) -> Int64Value:
            connection = inbox.of(context)
            if isinstance(connection, sqlite3.Connection):
                connection.execute("INSERT INTO effects VALUES (?)", (message.value,))
            else:
                await connection.execute("INSERT INTO effects VALUES ($1)", message.value)
            if random.random() < 0.05:
                raise OSError("now and then")
            return Int64Value(value=int(message.value))

        policy = DeliveryPolicy(
            concurrency=4,
            retry=RetryPolicy(max_attempts=10_000, initial_backoff=0.01, max_backoff=0.01),
        )
        service = Service(self._config, inbox=inbox)
        service.register(handler(work, publication=TO_DONE, delivery=policy))
        async with service:
            yield service


def _die_after(commits: int) -> None:
    """Kills this process after a COMMIT and before the acknowledgement."""
    left = commits

    commit = ExactlyOnce._commit

    async def committing(self: Any, transaction: Any, context: Any) -> Any:
        nonlocal left
        outcome = await commit(self, transaction, context)
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    ExactlyOnce._commit = committing  # type: ignore[method-assign]


def _forked(run: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        random.seed()
        asyncio.run(run())
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _wait(pid: int, seconds: float) -> int | None:
    """Returns how the process ended; None: it did not in time, and was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main() -> int:
    """Runs the trial and prints what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--namespace", default="kills")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    half = given.kills // 2
    trial = Trial(given.transport, given.database, given.kills * _COMMITS, given.namespace)
    if _wait(_forked(trial.prepare), _PATIENCE) != 0:
        raise SystemExit("the messages were not published")
    never = lambda _count: False  # noqa: E731  a shorthand
    after_commit = at_random = 0
    for number in range(given.kills):
        if number % 2 < 1 and after_commit < half:
            commits = chance.randint(1, _COMMITS)
            pid = _forked(partial(trial.consume, commits, never))
            after_commit += _wait(pid, _PATIENCE / 4) == -signal.SIGKILL
        else:
            pid = _forked(lambda: trial.consume(None, never))
            at_random += _wait(pid, chance.uniform(0.05, 0.6)) is None
    messages = given.kills * _COMMITS
    patience = max(_PATIENCE, messages / 5)
    finished = (
        _wait(_forked(lambda: trial.consume(None, lambda count: count >= messages)), patience) == 0
    )
    # What is delivered again after the last effect must change nothing.
    _wait(_forked(lambda: trial.consume(None, never)), 2.0)
    found = asyncio.run(trial.found())
    print(json.dumps({
        "messages": messages, "finished": finished, "killed_after_commit": after_commit,
        "killed_at_random": at_random, **found,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
