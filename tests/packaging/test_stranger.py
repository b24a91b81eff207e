"""From an empty directory to a replayed dead letter, with nothing but the wheel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import url_of
from tests.outside import outside
from tests.packaging.conftest import Distributions, Environment

pytestmark = [pytest.mark.xdist_group("distributions"), pytest.mark.timeout(400)]


class Stranger:
    """Somebody in a directory, with the commands of an environment."""

    def __init__(self, installed: Environment, folder: Path) -> None:
        self.folder = folder
        self._bin = installed.directory / "bin"
        self._environ = {**outside(), "PATH": f"{self._bin}:{os.environ['PATH']}"}
        self.port = _free_port()
        self.running: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Runs `protoflow`; what it prints."""
        done = subprocess.run(
            [self._bin / "protoflow", *arguments], cwd=self.folder, env=self._environ,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def test(self) -> str:
        """Runs the tests of the project."""
        done = subprocess.run(
            [self._bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return f"{done.stdout}{done.stderr}"

    def start(self) -> str:
        """Starts the service; the first line that it prints."""
        self.running = subprocess.Popen(
            [self._bin / "protoflow", "run", "app", "--http", self.port], cwd=self.folder,
            env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.running.stdout is not None
        return self.running.stdout.readline()

    def stop(self) -> str:
        """Ends the service; its log."""
        running, self.running = self.running, None
        assert running is not None
        running.terminate()
        _, log = running.communicate(timeout=60)
        assert running.returncode == 0, log
        return log

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return result


@pytest.fixture(scope="module")
def installed(environment: Callable[..., Environment], distributions: Distributions) -> Environment:
    return environment("stranger", f"{distributions.wheel}[cli,codegen,http,kafka,testing]")


@pytest.fixture
def stranger(installed: Environment, tmp_path: Path) -> Iterator[Stranger]:
    made = Stranger(installed, tmp_path)
    yield made
    if made.running is not None:
        made.running.kill()
        made.running.communicate()


def test_the_wheel_holds_the_schemas(installed: Environment) -> None:
    (file,) = installed.directory.glob("lib/*/site-packages/protoflow/cli/schemas/why.json")
    assert json.loads(file.read_text())["title"]


@pytest.mark.parametrize("broker", ["sqlite", "kafka"])
def test_from_an_empty_directory_to_a_replayed_dead_letter(stranger: Stranger, broker: str) -> None:
    name = f"shop{uuid.uuid4().hex[:6]}"
    url = url_of(broker) if broker != "sqlite" else ""
    if url is None:
        pytest.skip(f"broker: {broker}")
    made = stranger("init", name, *(["--transport", url] if url else []))
    assert f"wrote {name}/app.py" in made
    stranger("init", name, code=2)
    stranger.folder /= name
    settings = stranger.folder / "protoflow.toml"
    settings.write_text(f'{settings.read_text()}journal = "journal.db"\njournal_successes = true\n')

    # Others consume from the same broker; a member that comes or goes would repeat messages.
    stranger.edit(f"proto/{name}/v1/orders.proto", '"billing"', f'"{name}"')

    stranger("generate")
    stranger("check")
    assert "1 passed" in stranger.test()

    assert stranger.start().startswith(f"1 handler on {broker}")
    good = stranger("publish", "OrderPlaced", '{"orderId": "A-1", "cents": 1990}').strip()
    bad = stranger("publish", "OrderPlaced", '{"orderId": "A-2", "email": "a@b.example"}').strip()
    (row,) = until(lambda: stranger.json("dlq", "list"))
    assert (row["id"], row["error"]) == (bad, "order A-2 has no sum")

    billed = f"{name}.orders.billed"
    tail = stranger("tail", billed, "--from", "earliest", "--no-follow", "--json")
    assert [json.loads(line)["key"] for line in tail.splitlines()] == ["A-1"]
    if broker == "kafka":  # SQLite keeps no message that is settled
        tail = stranger("tail", "OrderPlaced", "--from", "earliest", "--no-follow")
        assert good in tail
        assert "a@b.example" not in tail

    why = stranger.json("why", bad)
    runs = [(row["event"], row["attempt"]) for row in why["timeline"] if row["attempt"]]
    assert runs == [
        *(("received", 1), ("failed", 1), ("received", 2), ("failed", 2)),
        *(("received", 3), ("failed", 3), ("dead-lettered", 3)),
    ]
    assert why["timeline"][0]["event"] == "published"
    (group,) = why["groups"]
    assert group["state"] == f"dead letter in {row['topic']}"
    (caused,) = stranger.json("why", good)["caused"]
    assert caused["topic"] == billed
    assert stranger.json("why", caused["id"])["caused_by"] == good
    stranger.stop()

    stranger.edit("app.py", "order.cents <= 0", "order.cents < 0")
    assert stranger("dlq", "replay", bad, "--yes") == "1 matched, 1 done, 0 failed\n"
    stranger.start()
    until(lambda: stranger.json("lag")[0]["waiting"] == 0)
    drained = stranger.json("drain", "--url", f"http://127.0.0.1:{stranger.port}")
    (subscription,) = drained["processes"][0]["subscriptions"]
    assert (subscription["state"], subscription["in_flight"]) == ("drained", 0)
    assert "billed A-2: 0 cents" in stranger.stop()
    assert stranger.json("dlq", "list") == []
    events = [row["event"] for row in stranger.json("why", bad)["timeline"]]
    assert [event for event in events if event in ("dead-lettered", "replayed", "handled")] == [
        *("dead-lettered", "replayed", "handled"),
    ]
