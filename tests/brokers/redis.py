"""redis-server, or valkey-server: what is on PATH, as Debian installs it."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Final

from protoflow.config.url import TransportURL

from tests.brokers.base import BrokerUnavailable, RunningBroker, TestBroker, free_port

_VERSION: Final = re.compile(rb"^redis_version:([0-9.]+)", re.MULTILINE)


class RedisBroker(TestBroker):
    """A single server on loopback with an append-only file.

    Args:
        fsync: when the file is synced: `everysec`, or `always` where a test kills the server.
        arguments: more arguments of the server.
        credentials: `user:password` that the arguments demand.
    """

    name = "redis"
    variable = "REDIS_URL"
    port = 6379

    def __init__(
        self,
        *,
        fsync: str = "everysec",
        arguments: tuple[str, ...] = (),
        credentials: str | None = None,
    ) -> None:
        self._fsync = fsync
        self._arguments = arguments
        self._credentials = f"{credentials}@" if credentials else ""

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        try:
            with socket.create_connection((host, port or self.port), 2) as connection:
                connection.settimeout(2)
                answer = _ask(connection, parsed)
        except OSError as error:
            raise BrokerUnavailable(
                f"nothing that speaks Redis at {parsed.safe}: {error}"
            ) from error
        if (found := _VERSION.search(answer)) is None:
            text = answer[:200].decode(errors="replace").strip()
            raise BrokerUnavailable(f"{parsed.safe} does not answer as Redis: {text}")
        return found[1].decode()

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        chosen = os.environ.get("PROTOFLOW_REDIS_SERVER", "redis-server")
        binary = shutil.which(chosen) or shutil.which("valkey-server")
        if binary is None:
            raise BrokerUnavailable("no redis-server; run: apt-get install redis-server")
        port = port or free_port()
        return self.run_server(
            [binary, *self.arguments(directory, port)],
            f"redis://{self._credentials}127.0.0.1:{port}",
            directory,
            source="path",
            details={"port": str(port)},
        )

    def arguments(self, directory: Path, port: int) -> list[str]:
        """What the server is started with."""
        place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
        log = ["--save", "", "--appendonly", "yes", "--appendfsync", self._fsync]
        return [*place, *log, *self._arguments]


def _ask(connection: socket.socket, url: TransportURL) -> bytes:
    """What INFO answers; an error if it takes no credentials, or still loads its data."""
    if url.password is not None:
        user = f"{url.user} " if url.user else ""
        connection.sendall(f"AUTH {user}{url.password.reveal()}\r\n".encode())
        connection.recv(1000)
    connection.sendall(b"INFO server\r\n")
    answer = b""
    while _VERSION.search(answer) is None and not answer.startswith(b"-"):
        if not (read := connection.recv(65536)):
            break
        answer += read
    return answer
