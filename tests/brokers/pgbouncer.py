"""pgbouncer in transaction mode before a PostgreSQL server, as Debian installs it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from protoflow.config.url import TransportURL

from tests.brokers.base import (
    BrokerUnavailable,
    RunningBroker,
    TestBroker,
    free_port,
    start_process,
    wait_for_port,
)
from tests.brokers.postgresql import PostgresBroker, unprivileged

_CONFIG = """[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
server_login_retry = 1
"""


class PgBouncer(TestBroker):
    """A pooler on loopback, without passwords.

    Args:
        server: the URL of the server behind it.
        user: the role that connects through it.
        size: how many connections to the server all its clients share.
    """

    name = "pgbouncer"

    def __init__(self, server: str, *, user: str = "postgres", size: int = 4) -> None:
        self._server = TransportURL.parse(server)
        self._user = user
        self._size = size

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise BrokerUnavailable("no pgbouncer; run: apt-get install pgbouncer")
        port = port or free_port()
        host, upstream = self._server.hosts[0]
        users, config = directory / "users.txt", directory / "pgbouncer.ini"
        users.write_text(f'"{self._user}" ""\n')
        config.write_text(
            _CONFIG.format(host=host, port=upstream, listen=port, users=users, size=self._size)
        )
        process = start_process(
            [binary, str(config)], directory / "pgbouncer.log", user=unprivileged()
        )
        url = f"postgresql://{self._user}@127.0.0.1:{port}{self._server.path}"
        try:
            wait_for_port(port, process, 15)
            PostgresBroker().probe(url)  # it has reached the server
        except BaseException:
            process.kill()
            process.wait()
            raise
        return RunningBroker(
            name=self.name,
            url=url,
            source="apt",
            version="",
            process=process,
            directory=directory,
        )

    def stop(self, broker: RunningBroker) -> None:
        if broker.process is not None and broker.process.poll() is None:
            broker.process.send_signal(signal.SIGCONT)
            broker.process.send_signal(signal.SIGQUIT)  # SIGTERM waits for all clients
        super().stop(broker)
