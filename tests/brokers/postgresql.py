"""PostgreSQL: Debian's server binaries, in a cluster of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

from protoflow.config.url import TransportURL

from tests.brokers.base import BrokerUnavailable, RunningBroker, TestBroker, free_port


class PostgresBroker(TestBroker):
    """A single server on loopback, without passwords.

    Args:
        settings: settings of the server.
    """

    name = "postgresql"
    variable = "POSTGRES_URL"
    port = 5432

    def __init__(self, *, settings: tuple[str, ...] = ()) -> None:
        self._settings = settings

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        import asyncio

        import asyncpg

        async def version() -> str:
            connection = await asyncpg.connect(
                host=host,
                port=port or self.port,
                user=parsed.user or "postgres",
                password=parsed.password.reveal() if parsed.password else None,
                database=parsed.path.removeprefix("/") or "postgres",
                ssl=False,
                timeout=2,
            )
            try:
                return str(await connection.fetchval("SHOW server_version")).split()[0]
            finally:
                await connection.close()

        try:
            return asyncio.run(version())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise BrokerUnavailable(
                f"nothing that speaks PostgreSQL at {parsed.safe}: {error}"
            ) from error

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        binaries = _find()
        port = port or free_port()
        data = directory / "data"
        if not (data / "PG_VERSION").exists():
            directory.mkdir(parents=True, exist_ok=True)
            data.mkdir(exist_ok=True)
            user = _unprivileged()
            if user is not None:
                shutil.chown(data, user)
            _run(
                [
                    binaries / "initdb",
                    "-D",
                    data,
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--locale",
                    "C.UTF-8",
                    "-N",
                ]
            )
        settings = [
            f"port={port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={data}",
            "max_connections=200",
            *self._settings,
        ]
        command = [binaries / "postgres", "-D", data]
        for setting in settings:
            command += ["-c", setting]
        with (directory / "postgresql.log").open("ab") as log:
            process = subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=data,
                user=_unprivileged(),
            )
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        try:
            version = self._wait(url, process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return RunningBroker(
            name=self.name,
            url=url,
            source="apt",
            version=version,
            process=process,
            directory=directory,
            details={"port": str(port)},
        )

    def _wait(self, url: str, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + 30
        while True:
            if process.poll() is not None:
                raise BrokerUnavailable(f"postgres ended with code {process.returncode}")
            try:
                return self.probe(url)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _unprivileged() -> str | None:
    """The user to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def _find() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if found:
        return found[-1]
    if (binary := shutil.which("postgres")) is not None:
        return Path(binary).parent
    raise BrokerUnavailable("no PostgreSQL server; apt-get install postgresql")


def _run(command: list[object]) -> None:
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, user=_unprivileged(), cwd="/"
    )
    if result.returncode:
        raise BrokerUnavailable(f"{command[0]} failed: {result.stderr.strip()[-500:]}")
