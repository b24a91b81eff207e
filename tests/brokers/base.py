"""What every test broker can do: be found, probed, started, hurt and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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

    def run_server(
        self,
        command: Sequence[str],
        url: str,
        directory: Path,
        *,
        source: str,
        details: Mapping[str, str],
        seconds: float = 15.0,
        hint: str = "",
    ) -> RunningBroker:
        """Starts a server whose output is its log, and waits until `probe` succeeds.

        Args:
            command: the program and its arguments.
            url: the URL of the server.
            directory: the directory of its log.
            source: see `RunningBroker`.
            details: see `RunningBroker`.
            seconds: how long the server may take to answer.
            hint: is added to the error if the server ends.

        Raises:
            BrokerUnavailable: the server ended, or does not answer.
        """
        process = start_process(command, directory / f"{self.name}.log")
        try:
            version = self.wait_for_answer(url, process, seconds, hint)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return RunningBroker(
            name=self.name,
            url=url,
            source=source,
            version=version,
            process=process,
            directory=directory,
            details=details,
        )

    def wait_for_answer(
        self, url: str, process: subprocess.Popen[bytes], seconds: float, hint: str = ""
    ) -> str:
        """Waits until `probe` succeeds, and returns the version. Raises BrokerUnavailable."""
        deadline = time.monotonic() + seconds
        while True:
            if process.poll() is not None:
                raise BrokerUnavailable(
                    f"the server of {self.name} ended with code {process.returncode}{hint}"
                )
            try:
                return self.probe(url)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

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


def start_process(
    command: Sequence[str], log: Path, **options: Any
) -> subprocess.Popen[bytes]:  # Any: those of Popen
    """Starts a server in a session of its own, with its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **options,
        )


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
