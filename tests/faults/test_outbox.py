"""Writers and relays of an outbox are killed at random, and what arrived is counted.

A message arrives if and only if its transaction committed, and each key in order. The long form,
of `make faults`, kills 1,000 processes in all. Processes kill themselves at the moments that
matter, so no clock decides.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.database import users
from tests.database.conftest import postgres_database, postgres_url
from tests.faults import outbox_process
from tests.faults.outbox_process import outbox_at

__all__ = ["postgres_database", "postgres_url"]

LONG = os.environ.get("PROTOFLOW_FAULTS") == "long"
#: How many processes are killed, by the moment.
KILLS = {"between publish and delete": 6, "after delete": 2, "before commit": 2, "after commit": 2}
if LONG:
    KILLS = dict.fromkeys(KILLS, 125)
WRITERS = ("before commit", "after commit")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.outbox_process"])

pytestmark = pytest.mark.timeout(3600 if LONG else 110)

TABLES = {
    "postgresql": """CREATE TABLE mine (
        number bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY, key text NOT NULL)""",
    "sqlite": "CREATE TABLE mine (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL)",
}


@dataclass
class Processes:
    """Two writers and two relays; who is killed is replaced.

    Attributes:
        killed: how many were killed, by the moment.
    """

    url: str
    log: Path
    killed: Counter[str] = field(default_factory=Counter)
    running: dict[str, tuple[ForkServerProcess, str]] = field(default_factory=dict)

    def start(self, name: str, moment: str) -> None:
        arguments = ("writer", self.url, name) if "writer" in name else (
            "relay", self.url, str(self.log)
        )  # fmt: skip
        process = CONTEXT.Process(target=outbox_process.run, args=(*arguments, moment), daemon=True)
        process.start()
        self.running[name] = (process, moment)

    def next_moment(self, name: str) -> str:
        """When the next process of a name kills itself: what is wanted most."""
        moments = WRITERS if "writer" in name else [each for each in KILLS if each not in WRITERS]
        return max(moments, key=lambda moment: KILLS[moment] - self.killed[moment])

    async def kill_all(self) -> None:
        for name in ("writer-a", "writer-b", "relay-a", "relay-b"):
            self.start(name, self.next_moment(name))
        while any(self.killed[moment] < count for moment, count in KILLS.items()):
            await asyncio.sleep(0.01)
            for name, (process, moment) in list(self.running.items()):
                if process.exitcode is None:
                    continue
                assert process.exitcode == -signal.SIGKILL, f"{name} ended by itself"
                self.killed[moment] += 1
                self.start(name, self.next_moment(name))

    async def finish(self) -> None:
        """Kills everything, and lets an unharmed relay publish the rest."""
        self.end()
        self.start("relay-c", "never")
        store = outbox_at(self.url)
        async with asyncio.timeout(60):
            while (await store.backlog())[0]:
                await asyncio.sleep(0.05)
        assert await store.parked() == []
        await store.close()
        process, _ = self.running["relay-c"]
        process.terminate()
        process.join()
        assert process.exitcode == 0

    def end(self) -> None:
        for process, _ in self.running.values():
            process.kill()
            process.join()


@pytest.fixture(params=[*TABLES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "app.db")
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
async def processes(url: str, tmp_path: Path) -> AsyncIterator[Processes]:
    if "://" not in url:
        await users.execute(url, "PRAGMA journal_mode=WAL")
    await users.execute(url, TABLES["postgresql" if "://" in url else "sqlite"])
    store = outbox_at(url)
    await store.backlog()  # creates its tables
    await store.close()
    log = tmp_path / "published"
    log.touch()
    processes = Processes(url, log)
    yield processes
    processes.end()


async def test_a_message_arrives_if_and_only_if_its_transaction_committed(
    processes: Processes,
) -> None:
    await processes.kill_all()
    await processes.finish()
    committed = {
        int(number): key
        for number, key in await users.rows(processes.url, "SELECT number, key FROM mine")
    }
    lines = [line.split() for line in processes.log.read_text().splitlines()]
    arrived = [int(number) for _, number, _ in lines]
    first = dict.fromkeys(arrived)
    assert set(first) == set(committed), "lost, or published though rolled back"
    for key in set(committed.values()):
        lane = [number for number in first if committed[number] == key]
        assert lane == sorted(lane), "a key lost its order"
    print(
        f"{len(committed)} messages, {len(arrived) - len(first)} published again, killed: "
        + ", ".join(f"{count} {kind}" for kind, count in processes.killed.items())
    )
    assert len(committed) > 20
