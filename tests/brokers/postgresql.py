"""PostgreSQL: Debian's server binaries, in a cluster of our own."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from protoflow.config.url import TransportURL
from protoflow.transports.postgresql.schema import VERSION

from tests.brokers.base import (
    BrokerUnavailable,
    RunningBroker,
    TestBroker,
    free_port,
    send_signal,
    start_process,
)

#: The environment variable that may name the directory of another server's programs.
BINARIES = "PROTOFLOW_POSTGRESQL_BIN"
_BINARIES = Path("/usr/lib/postgresql")
_CLUSTERS = Path("/etc/postgresql-common/createcluster.conf")


class RunningServer(RunningBroker):
    """A server; a signal reaches the processes of its connections, too."""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} was not started by us"
        send_signal(self.process.pid, number)
        for pid in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                send_signal(pid, number)


class PostgresBroker(TestBroker):
    """A single server on loopback, without passwords.

    Nothing is synced to the disk: tests kill processes, not machines.

    Args:
        settings: more settings of the server, such as `wal_level=logical`.
    """

    name = "postgresql"
    variable = "POSTGRES_URL"
    port = 5432

    def __init__(self, *, settings: tuple[str, ...] = ()) -> None:
        self._settings = settings

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        try:
            with socket.create_connection((host, port or self.port), 2) as connection:
                connection.settimeout(10)
                return _handshake(connection, parsed)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"no PostgreSQL at {parsed.safe}: {error}") from error

    def place(self, url: str) -> str:
        """A database for this version of the tables."""
        name = f"tables_{VERSION}"
        found = f"{url.rpartition('/')[0]}/{name}"
        try:
            self.probe(found)
        except BrokerUnavailable:
            run([client("createdb"), f"--maintenance-db={url}", name])
        return found

    def stop(self, broker: RunningBroker) -> None:
        if broker.process is not None and broker.process.poll() is None:
            broker.signal(signal.SIGCONT)
            broker.process.send_signal(signal.SIGINT)  # SIGTERM waits for all clients
        super().stop(broker)

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        _install()
        programs = binaries()
        port = port or free_port()
        data = directory / "data"
        if not (data / "PG_VERSION").exists():
            directory.mkdir(parents=True, exist_ok=True)
            data.mkdir(exist_ok=True)
            user = unprivileged()
            if user is not None:
                shutil.chown(data, user)
            cluster = ["-D", data, "-U", "postgres", "-A", "trust", "-N"]
            run([programs / "initdb", *cluster, "-E", "UTF8", "--locale", "C.UTF-8"])
        settings = [
            f"port={port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={data}",
            "max_connections=300",
            "fsync=off",
            *self._settings,
        ]
        command = [str(programs / "postgres"), "-D", str(data)]
        for setting in settings:
            command += ["-c", setting]
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        process, version = self._launch(command, directory, url)
        return RunningServer(
            name=self.name,
            url=url,
            source="apt",
            version=version,
            process=process,
            directory=directory,
            details={"port": str(port)},
        )

    def _launch(
        self, command: list[str], directory: Path, url: str
    ) -> tuple[subprocess.Popen[bytes], str]:
        """Starts the server. One whose predecessor was killed waits for what that left behind."""
        deadline = time.monotonic() + 60
        while True:
            process = start_process(
                command,
                directory / "postgresql.log",
                cwd=directory / "data",
                user=unprivileged(),
            )
            while process.poll() is None:
                try:
                    return process, self.probe(url)
                except BrokerUnavailable:
                    if time.monotonic() > deadline:
                        process.kill()
                        process.wait()
                        raise
                    time.sleep(0.05)
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"postgres ended with code {process.returncode}")
            time.sleep(0.2)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(each) for each in tasks.read_text().split()]
    except OSError:
        return []


def _install() -> None:
    """Installs Debian's server, without the cluster that the package would make and start."""
    if _found() or shutil.which("postgres"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BrokerUnavailable("no PostgreSQL server; run: apt-get install postgresql")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["install", "-y", "-qq", "--no-install-recommends"]
    for arguments in (["update", "-qq"], [*install, "postgresql-common"], [*install, "postgresql"]):
        result = subprocess.run(
            ["apt-get", *arguments], env=environment, capture_output=True, text=True
        )
        if _CLUSTERS.exists():
            text = _CLUSTERS.read_text()
            _CLUSTERS.write_text(
                re.sub(r"(?m)^#?\s*create_main_cluster\b.*$", "create_main_cluster = false", text)
            )
    if not _found():
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        raise BrokerUnavailable(f"postgresql cannot be installed: {lines[-1]}")


def unprivileged() -> str | None:
    """The user to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def _found() -> list[Path]:
    """The servers of Debian's packages, the newest last, or the one that is named."""
    if named := os.environ.get(BINARIES):
        return [Path(named) / "postgres"]
    return sorted(_BINARIES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))


def binaries() -> Path:
    if found := _found():
        return found[-1].parent
    if (binary := shutil.which("postgres")) is not None:
        return Path(binary).parent
    raise BrokerUnavailable("no PostgreSQL server; apt-get install postgresql")


def client(name: str) -> Path:
    """A client program such as `pg_dump`."""
    own = binaries() / name
    found = own if own.exists() else shutil.which(name)
    if found is None:
        raise BrokerUnavailable(f"no {name}; apt-get install postgresql-client")
    return Path(found)


def client_version() -> int:
    """The major version of the client programs."""
    result = subprocess.run(
        [client("pg_dump"), "--version"], capture_output=True, text=True, check=True
    )
    return int(re.findall(r"\d+", result.stdout)[0])


def run(command: list[object]) -> None:
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, user=unprivileged(), cwd="/"
    )
    if result.returncode:
        raise BrokerUnavailable(f"{command[0]} failed: {result.stderr.strip()[-500:]}")


def _handshake(connection: socket.socket, url: TransportURL) -> str:
    """Logs in, and returns the server's version; "unknown" if it wants a password."""
    user, database = url.user or "postgres", url.path.removeprefix("/") or "postgres"
    parameters = f"user\0{user}\0database\0{database}\0\0".encode()
    connection.sendall(struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters)
    reader = connection.makefile("rb")
    version = "unknown"
    while True:
        head = reader.read(5)
        if len(head) < 5:
            raise ValueError("the connection was closed")
        kind, body = head[:1], reader.read(struct.unpack("!i", head[1:])[0] - 4)
        if kind == b"E":
            raise ValueError(body.decode(errors="replace").replace("\0", " "))
        if kind == b"S" and body.startswith(b"server_version\0"):
            version = body.split(b"\0")[1].decode().split()[0]
        if kind == b"Z" or (kind == b"R" and body[:4] != bytes(4)):
            connection.sendall(b"X\0\0\0\4")
            return version
