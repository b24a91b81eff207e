"""The example of webhooks does what its README says."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.brokers.base import free_port
from tests.examples.test_orders import ROOT, environment

OLD, NEW = ("whsec_" + base64.b64encode(key * 24).decode() for key in (b"o", b"n"))


class Example:
    """A copy of the example, on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.receiver: subprocess.Popen[str] | None = None

    def environment(self, secrets: str) -> dict[str, str]:
        return environment(WEBHOOK_SECRETS=secrets, PORT=str(self.port))

    def receive(self, secrets: str) -> None:
        """Starts the receiver, and waits until it answers."""
        self.receiver = subprocess.Popen(
            [sys.executable, "receive.py"], cwd=self.directory, text=True,
            env=self.environment(secrets), stdout=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.options(f"http://127.0.0.1:{self.port}/hooks/payments")
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def line(self) -> str:
        """The next line of the receiver."""
        assert self.receiver is not None
        assert self.receiver.stdout is not None
        return self.receiver.stdout.readline()

    def send(self, secrets: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "send.py"], cwd=self.directory, text=True, timeout=60,
            env=self.environment(secrets), capture_output=True, check=False,
        )  # fmt: skip

    def kill(self) -> None:
        if self.receiver is not None:
            self.receiver.kill()
            self.receiver.communicate(timeout=30)


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    ignored = shutil.ignore_patterns("__pycache__", "*.db*")
    source = ROOT / "examples" / "webhooks"
    example = Example(shutil.copytree(source, tmp_path / "webhooks", ignore=ignored))
    yield example
    example.kill()


def test_what_was_accepted_is_handled_while_secrets_are_rotated(example: Example) -> None:
    example.receive(OLD)
    sent = example.send(OLD)
    assert sent.stdout.startswith("accepted "), sent.stderr
    id = sent.stdout.split()[1]
    assert example.line() == f"order A-7: 1299 cents, message {id}\n"
    assert "refused" in example.send(NEW).stderr or "401" in example.send(NEW).stderr
    example.kill()
    example.receive(f"{OLD},{NEW}")
    for secret in (OLD, NEW):
        assert example.send(secret).stdout.startswith("accepted ")
        assert example.line().startswith("order A-7")
    unsigned = httpx.post(
        f"http://127.0.0.1:{example.port}/hooks/payments", json={"order_id": "A-8", "cents": 1}
    )
    assert unsigned.status_code == 401
    assert unsigned.json()["detail"].startswith("the request has no webhook-id")
