"""A project in a folder of its own, and the command in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import schemas
from tests.cli.forks import Forks

ROOT = Path(__file__).parents[2]

ORDERS = """\
syntax = "proto3";
package shop.v1;
import "protoflow/v1/options.proto";
message OrderPlaced {
  option (protoflow.v1.message).topic = "orders.placed";
  string order_id = 1 [(protoflow.v1.field).partition_key = true];
  int64 cents = 2;
  string email = 3 [(protoflow.v1.field).sensitive = true];
}
message OrderBilled {
  option (protoflow.v1.message).topic = "orders.billed";
  string order_id = 1;
}
service Orders {
  option (protoflow.v1.service).consumer_group = "billing";
  rpc BillOrder(OrderPlaced) returns (OrderBilled) {
    option (protoflow.v1.consume) = {
      delivery: {
        ordering: ORDERING_PER_KEY
        retry: {max_attempts: 2, initial_backoff: {nanos: 1000000}}
      }
    };
    option (protoflow.v1.publish) = {};
  }
}
"""

APP = """\
from shop.v1.orders_pb2 import OrderBilled
from shop.v1.orders_protoflow import OrdersHandler


class Billing(OrdersHandler):
    async def bill_order(self, order, context, /):
        if not order.cents:
            raise ValueError("no sum")
        print(f"billed {order.order_id}", flush=True)
        return OrderBilled(order_id=order.order_id)
"""


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def json(self) -> Any:
        return json.loads(self.out)


_forks = Forks()
atexit.register(_forks.close)


class Project:
    """A folder that commands run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self.environ = {
            **{name: value for name, value in os.environ.items() if "PROTOFLOW" not in name},
            "PYTHONPATH": str(ROOT / "runtime"),
        }

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def use(self, transport: str) -> None:
        """Every command uses this transport."""
        self.environ["PROTOFLOW_TRANSPORT"] = transport

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "protoflow.cli", *arguments]

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        done = Done(*_forks.run(arguments, self.folder, self.environ, stdin))
        assert "Traceback" not in done.err, done.err
        if "--json" in arguments and done.out:
            schemas.validate(arguments, done.out)
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        started = subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environ,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._started.append(started)
        return started

    def close(self) -> None:
        """Ends the commands that a failed test has left."""
        for started in self._started:
            if started.poll() is None:
                started.terminate()
                started.communicate(timeout=30)

    def python(self, program: str) -> str:
        """What a program prints that imports the generated modules."""
        path = f"{self.folder / 'gen'}:{self.folder}:{ROOT / 'runtime'}"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=self.folder,
            env={**self.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty folder."""
    made = Project(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated contract and a handler; made once, to be copied."""
    made = Project(tmp_path_factory.mktemp("shop"))
    made.write("proto/shop/v1/orders.proto", ORDERS)
    made.write("app.py", APP)
    assert made("generate", "-q").code == 0
    return made.folder


@pytest.fixture
def shop(project: Project, generated: Path) -> Project:
    """A generated contract with a handler, on SQLite."""
    shutil.copytree(generated, project.folder, dirs_exist_ok=True)
    project.use("sqlite:///shop.db")
    return project
