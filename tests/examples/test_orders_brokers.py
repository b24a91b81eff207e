"""The orders example on every broker: its service and its publisher, as people run them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

from tests.brokers import url_of
from tests.examples.test_orders import ROOT, environment

ORDERS = 60
PATIENCE = 60.0
_BILLED = re.compile(r"order (order-\d+): a bill of (\d+) cents")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, generated."""
    ignored = shutil.ignore_patterns("gen", "third_party", "__pycache__", "*.db*")
    directory = tmp_path_factory.mktemp("example") / "orders"
    shutil.copytree(ROOT / "examples" / "orders", directory, ignore=ignored)
    gen = directory / "gen"
    gen.mkdir()
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", "-Iproto", f"-I{ROOT / 'proto'}"),
        *(f"--python_out={gen}", f"--protoflow_out={gen}", "proto/shop/v1/orders.proto"),
    ]
    subprocess.run(command, cwd=directory, env=environment(), check=True)
    return directory


def generated(**settings: str) -> dict[str, str]:
    """The environment of a program that imports what was generated."""
    made = environment(**settings)
    return {**made, "PYTHONPATH": f"gen{os.pathsep}{made['PYTHONPATH']}"}


class Running:
    """`python service.py`, and what it says."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "service.py"],
            cwd=directory,
            env=generated(**settings),
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        self.said: list[str] = []
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr:
            for line in self._process.stderr:
                self._lines.put(line)

    def until(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Waits for so many lines with the pattern."""
        deadline = time.monotonic() + PATIENCE
        found: list[re.Match[str]] = []
        while len(found) < count:
            try:
                line = self._lines.get(timeout=0.2)
            except Empty:
                over = self._process.poll() is not None or time.monotonic() > deadline
                assert not over, f"{len(found)} of {count} came:\n{''.join(self.said)}"
                continue
            self.said.append(line)
            if match := re.search(pattern, line):
                found.append(match)
        return found

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._reader.join(PATIENCE)
            while not self._lines.empty():
                self.said.append(self._lines.get())


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of the example on a broker, in a namespace of this test."""
    url = f"sqlite:///{tmp_path}/orders.db" if request.param == "sqlite" else url_of(request.param)
    if url is None:
        pytest.skip(f"broker: {request.param}")
    return {"PROTOFLOW_TRANSPORT": url, "PROTOFLOW_NAMESPACE": f"e{uuid.uuid4().hex[:10]}"}


def publish(directory: Path, settings: dict[str, str], count: int) -> str:
    done = subprocess.run(
        [sys.executable, "publish.py", str(count)],
        cwd=directory,
        env=generated(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("settings", ["sqlite", "kafka", "rabbitmq", "jetstream"], indirect=True)
def test_every_order_is_billed_and_mailed_once(example: Path, settings: dict[str, str]) -> None:
    services = [Running(example, settings), Running(example, settings)]
    try:
        for service in services:
            service.until("the service started")
        assert publish(example, settings, ORDERS).startswith(f"published {ORDERS} orders to ")
        deadline = time.monotonic() + PATIENCE
        while billed_by(services) < ORDERS and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.3)  # what comes twice comes now
    finally:
        statuses = [service.stop() for service in services]
    said = "".join(line for service in services for line in service.said)
    bills = dict(_BILLED.findall(said))
    assert len(_BILLED.findall(said)) == ORDERS, said
    expected = {f"order-{n}": str((1 + n % 3) * 1990) for n in range(ORDERS)}
    assert bills == expected
    assert statuses == [0, 0], said
    assert "ERROR" not in said


def billed_by(services: list[Running]) -> int:
    """How many bills all services have sent so far."""
    for service in services:
        while not service._lines.empty():
            service.said.append(service._lines.get())
    return sum(len(_BILLED.findall("".join(service.said))) for service in services)


@pytest.mark.parametrize("settings", ["nats"], indirect=True)
def test_core_nats_refuses_what_the_contract_demands(
    example: Path, settings: dict[str, str]
) -> None:
    service = Running(example, settings)
    status = service._process.wait(PATIENCE)
    service.stop()
    assert status != 0
    said = "".join(service.said)
    assert "CapabilityError" in said
    assert "shop.v1.Orders.BillOrder" in said


@pytest.mark.parametrize("settings", ["kafka", "rabbitmq", "jetstream"], indirect=True)
def test_the_demo_accounts_for_every_order(example: Path, settings: dict[str, str]) -> None:
    """Retries, dead letters, and their replay."""
    done = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=example,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Every order is accounted for.")
