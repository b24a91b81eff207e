"""RabbitMQ from Debian's package `rabbitmq-server`, as the user `rabbitmq`, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
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

# Not /usr/sbin/rabbitmq-server: that wrapper changes user and directory and drops variables.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CONTROL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
_USER = "rabbitmq"
_PLUGINS = ("rabbitmq_consistent_hash_exchange",)
_BOOT_SECONDS = 60.0
_mappers: dict[Path, subprocess.Popen[bytes]] = {}


class RabbitMQBroker(TestBroker):
    """A single node with its own port mapper (epmd).

    A queue that was declared within the last seconds before a SIGKILL may be wedged after
    the restart (seen with 3.10): tests declare, wait eight seconds, then kill.

    Args:
        plugins: the plugins that are enabled.
        settings: more lines of rabbitmq.conf, such as `consumer_timeout = 10000`.
    """

    name = "rabbitmq"
    variable = "AMQP_URL"
    port = 5672

    def __init__(self, *, plugins: Sequence[str] = _PLUGINS, settings: Sequence[str] = ()) -> None:
        self._plugins = plugins
        self._settings = settings

    def probe(self, url: str) -> str:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        try:
            with socket.create_connection((host, port or self.port), 2) as connection:
                connection.settimeout(10)
                return _handshake(connection, parsed)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"no RabbitMQ at {parsed.safe}: {error}") from error

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        _install()
        port = port or free_port()
        directory.mkdir(parents=True, exist_ok=True)
        _end_port_mapper(directory)
        mapper_port, user = free_port(), _user(directory)
        self._configure(directory, port)
        if user:
            for path in (directory, *directory.rglob("*")):
                shutil.chown(path, user, user)
        prefix = _as_user(user)
        environment = _environment(directory, port, mapper_port)

        def run(*command: str) -> subprocess.Popen[bytes]:
            return start_process(
                [*prefix, *command], directory / "server.log", env=environment, cwd=directory
            )

        mapper = run("epmd", "-address", "127.0.0.1", "-port", str(mapper_port))
        _mappers[directory] = mapper
        (directory / "epmd.pid").write_text(str(mapper.pid))
        process = run(str(_SERVER))
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        broker = RunningBroker(
            name=self.name,
            url=url,
            source="apt",
            version="",
            process=process,
            directory=directory,
            details={"port": str(port), "mapper_port": str(mapper_port)},
        )
        try:
            wait_for_port(mapper_port, mapper, 10)
            wait_for_port(port, process, _BOOT_SECONDS)
            broker.version = self.wait_for_answer(url, process, _BOOT_SECONDS)
        except BaseException:
            process.kill()
            self.stop(broker)
            raise
        return broker

    def control(self, broker: RunningBroker, *arguments: str) -> str:
        """Runs rabbitmqctl against a broker that this process started; what it printed."""
        directory = broker.directory
        assert directory is not None
        port, mapper_port = int(broker.details["port"]), int(broker.details["mapper_port"])
        done = subprocess.run(
            [*_as_user(_user(directory)), str(_CONTROL), "--quiet", *arguments],
            env=_environment(directory, port, mapper_port),
            cwd=directory,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def stop(self, broker: RunningBroker) -> None:
        super().stop(broker)
        if broker.directory is not None:
            _end_port_mapper(broker.directory)

    def _configure(self, directory: Path, port: int) -> None:
        home = directory / "home"
        home.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(f"PROTOFLOW{os.urandom(8).hex().upper()}")
            cookie.chmod(0o400)
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{port}",
            "log.console = false",
            "log.file.level = warning",
            "vm_memory_high_watermark.relative = 0.5",  # a session makes thousands of queues
            "disk_free_limit.absolute = 50MB",
            "max_message_size = 16777216",  # as RabbitMQ 4 has it
            *self._settings,
        ]
        (directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")


def _environment(directory: Path, port: int, mapper_port: int) -> dict[str, str]:
    scheduling = "+sbwt none +sbwtdcpu none +sbwtdio none"  # idle without spinning
    # A quorum queue reserves three files that it does not open, and with none left the server
    # accepts no connection: a long session makes more queues than the usual limit allows.
    files = "-rabbit file_handles_high_watermark 1000000"
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(directory / "home"),
        # The port mapper is the node's own, so the name need not be.
        "RABBITMQ_NODENAME": "protoflow@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            f"-kernel inet_dist_use_interface {{127,0,0,1}} {scheduling} {files}"
        ),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        # The script then becomes the server, so signals reach it.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _install() -> None:
    if _SERVER.exists():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BrokerUnavailable("no rabbitmq-server; run: apt-get install rabbitmq-server")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"],
    ):
        result = subprocess.run(
            ["apt-get", *arguments], env=environment, capture_output=True, text=True
        )
    if not _SERVER.exists():
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        raise BrokerUnavailable(f"rabbitmq-server cannot be installed: {lines[-1]}")


def _user(directory: Path) -> str | None:
    """The user to run as, if we may change it and that user can get at the directory."""
    if os.geteuid() != 0:
        return None
    parents = directory.resolve().parents
    return _USER if all(parent.stat().st_mode & 0o001 for parent in parents) else None


def _as_user(user: str | None) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []


def _end_port_mapper(directory: Path) -> None:
    """Ends the port mapper of an earlier start; it outlives a node that was killed."""
    if mapper := _mappers.pop(directory, None):
        mapper.terminate()
        mapper.wait()
    file = directory / "epmd.pid"
    if not file.exists():
        return
    pid = int(file.read_text())
    file.unlink()
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "epmd":  # an earlier session's
            os.kill(pid, signal.SIGTERM)


def _handshake(connection: socket.socket, url: TransportURL) -> str:
    """Logs in, opens the virtual host, and returns the server's version."""
    # Imported here: reading the class must not need the client libraries.
    from pamqp import commands, frame, header

    def send(value: frame.FrameTypes) -> None:
        connection.sendall(frame.marshal(value, 0))

    received = _frames(connection)
    send(header.ProtocolHeader())
    start = next(received)
    if not isinstance(start, commands.Connection.Start):
        raise ValueError("not an AMQP 0-9-1 server")
    user, password = url.user or "guest", url.password.reveal() if url.password else "guest"
    send(commands.Connection.StartOk(mechanism="PLAIN", response=f"\0{user}\0{password}"))
    if not isinstance(tune := next(received), commands.Connection.Tune):
        raise ValueError(getattr(tune, "reply_text", "refused"))
    send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
    send(commands.Connection.Open(url.path.removeprefix("/") or "/"))
    if not isinstance(opened := next(received), commands.Connection.OpenOk):
        raise ValueError(getattr(opened, "reply_text", "refused"))
    send(commands.Connection.Close(200, "probed", 0, 0))
    next(received)
    return str((start.server_properties or {}).get("version", "unknown"))


def _frames(connection: socket.socket) -> Iterator[object]:
    from pamqp import frame

    buffer = b""
    while True:
        received = connection.recv(65536)
        if not received:
            raise ValueError("the connection was closed")
        buffer += received
        _, _, size = frame.frame_parts(buffer)
        if size is not None and len(buffer) >= size + 8:
            consumed, _, value = frame.unmarshal(buffer)
            buffer = buffer[consumed:]
            yield value
