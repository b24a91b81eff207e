"""A standby of a PostgreSQL server that runs, made by pg_basebackup."""

from __future__ import annotations

import shutil
from pathlib import Path

from protoflow.config.url import TransportURL

from tests.brokers.base import RunningBroker
from tests.brokers.postgresql import PostgresBroker, binaries, run, unprivileged


class PostgresStandby(PostgresBroker):
    """A hot standby, which follows its primary until it is promoted.

    Args:
        primary: the URL of the server that it follows.
    """

    def __init__(self, primary: str) -> None:
        super().__init__()
        ((self._host, self._port),) = TransportURL.parse(primary).hosts

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        data = directory / "data"
        if not data.exists():
            data.mkdir(mode=0o700)
            if (user := unprivileged()) is not None:
                shutil.chown(data, user)
            source = ["-h", self._host, "-p", str(self._port), "-U", "postgres"]
            run([binaries() / "pg_basebackup", *source, "-D", data, "-R", "-c", "fast"])
        return super().start(directory, port)
