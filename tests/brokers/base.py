"""What every test broker can do: be found, probed, started, hurt and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


def send_signal(pid: int, number: signal.Signals) -> None:
    """Sends a signal; after SIGSTOP no thread of the process runs any more."""
    os.kill(pid, number)
    tasks = Path(f"/proc/{pid}/task")
    if number is not signal.SIGSTOP or not tasks.exists():
        return
    for _ in range(1000):
        states = [_state(task) for task in tasks.iterdir()]
        if all(state in "Tt" for state in states):
            return
        time.sleep(0.005)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"  # it has ended


class BrokerUnavailable(Exception):
    """The broker cannot be had here; the text says why."""


@dataclass
class RunningBroker:
    """A broker that answers, and the process if we started it."""

    name: str
    url: str  # as Protoflow takes it: kafka://127.0.0.1:9092
    source: str  # env, running, maven, wheel, apt, path
    version: str
    process: subprocess.Popen[bytes] | None = None
    directory: Path | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process we started (SIGSTOP, SIGCONT, SIGKILL...)."""
        assert self.process is not None, f"{self.name} was not started by us"
        send_signal(self.process.pid, number)

    def line(self) -> str:
        """One line of status."""
        return f"{self.name:<10} {self.source:<8} {self.version:<10} {self.url}"


class TestBroker:
    """One kind of broker. Subclasses say how it is probed and started.

    Attributes:
        name: `kafka`.
        variable: the environment variable that holds a URL, `KAFKA_URL`.
        port: the standard port, where one may already listen.
    """

    __test__ = False
    name: str
    variable: str
    port: int

    def probe(self, url: str) -> str:
        """The version of the server behind the URL, by speaking its protocol. Raises
        BrokerUnavailable."""
        raise NotImplementedError(self.name)

    def place(self, url: str) -> str:
        """The URL for these sources on a server that other versions of them may use, too."""
        return url

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        """Starts one on loopback with its data below `directory`, and waits until it serves.
        Data that is there already is kept, so this restarts a stopped or killed one; `port`
        asks for the same port again. Raises BrokerUnavailable."""
        raise NotImplementedError(self.name)

    def stop(self, broker: RunningBroker) -> None:
        """Stops what we started."""
        process = broker.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits until the port answers. Raises BrokerUnavailable if the process ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerUnavailable(f"the server ended with code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BrokerUnavailable(f"the server did not listen within {seconds:.0f} s")
