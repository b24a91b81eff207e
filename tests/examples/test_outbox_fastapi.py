"""The shop keeps its promises although it is killed again and again."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.brokers import url_or_skip
from tests.brokers.base import free_port
from tests.database.conftest import postgres_database, postgres_url
from tests.examples.test_orders import ROOT, environment

__all__ = ["postgres_database", "postgres_url"]

_ORDERS = 60
_KILLS = 3


class Shop:
    """The program, started again whenever it was killed."""

    def __init__(self, directory: Path, database: str, broker: str) -> None:
        self._directory = directory
        self._environment = environment(
            DATABASE_URL=database, PROTOFLOW_TRANSPORT=broker,
            PROTOFLOW_NAMESPACE=f"shop{secrets.token_hex(4)}", PROTOFLOW_LEASE="2",
        )  # fmt: skip
        path = f"{directory / 'gen'}:{self._environment['PYTHONPATH']}"
        self._environment["PYTHONPATH"] = path
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts it, and waits until it serves."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", str(self._port),
             "--log-level", "warning"],
            cwd=self._directory, env=self._environment,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=self.url) as client, asyncio.timeout(60):
            while True:
                assert self._process.poll() is None
                try:
                    await client.get("/readyz")
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str) -> Any:
    broker = url_or_skip("nats")
    directory = tmp_path / "outbox_fastapi"
    ignored = shutil.ignore_patterns("gen", "__pycache__")
    shutil.copytree(ROOT / "examples" / "outbox_fastapi", directory, ignore=ignored)
    subprocess.run(
        [Path(sys.executable).parent / "protoflow", "generate", "--out", "gen"],
        cwd=directory, env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    made = Shop(directory, postgres_url, broker.replace("nats://", "jetstream://"))
    yield made, postgres_url
    made.kill()


@pytest.mark.timeout(240)
async def test_a_shop_that_is_killed_loses_and_repeats_nothing(shop: tuple[Shop, str]) -> None:
    program, url = shop
    chance = random.Random(7)
    await program.start()

    async def place() -> None:
        async with httpx.AsyncClient(base_url=program.url) as client:
            for number in range(_ORDERS):
                order = {"id": str(number), "item": str(number % 5), "quantity": 1}
                while True:
                    try:
                        answer = await client.post("/orders", json=order)
                        if answer.status_code == 201:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.02)

    placing = asyncio.create_task(place())
    for _ in range(_KILLS):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        program.kill()
        await program.start()
    await placing
    database = await asyncpg.connect(url)
    async with asyncio.timeout(90):
        while await database.fetchval("SELECT count(DISTINCT order_id) FROM notices") < _ORDERS:
            await asyncio.sleep(0.1)
    await asyncio.sleep(3.0)  # longer than the lease: what comes again changes nothing
    for table in ("reservations", "notices"):
        rows = [row[0] for row in await database.fetch(f"SELECT order_id FROM {table}")]
        assert sorted(rows, key=int) == [str(number) for number in range(_ORDERS)]
    stock = dict(await database.fetch("SELECT item, quantity FROM stock"))
    assert stock == {str(item): -_ORDERS // 5 for item in range(5)}
    await database.close()
    program.kill(signal.SIGTERM)
