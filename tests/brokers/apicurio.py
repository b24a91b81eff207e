"""Apicurio Registry from Maven Central: a real schema registry with Confluent's interface.

Its archive is unpacked in `~/.cache/protoflow-tests`, so only the first start needs the network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.brokers.base import BrokerUnavailable, free_port, start_process

CACHE: Final = Path.home() / ".cache" / "protoflow-tests"
VERSION: Final = "3.0.9"  # 3.3 needs Java 21
_RUNNER: Final = f"apicurio-registry-app-{VERSION}-runner.jar"
_API: Final = "/apis/ccompat/v7"


def unpacked() -> Path:
    """The directory of the registry, fetched if need be."""
    target = CACHE / f"apicurio-{VERSION}"
    if (target / _RUNNER).exists():
        return target
    if not shutil.which("mvn") or not shutil.which("java"):
        raise BrokerUnavailable("apicurio: needs java 17 and mvn")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        partial = Path(folder) / "unpacked"
        _fetch(Path(folder), partial)
        with contextlib.suppress(OSError):  # another process was quicker
            partial.rename(target)
    return target


def _fetch(folder: Path, partial: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
    command = ["mvn", "-q", "-B", "-ntp", "dependency:copy", f"-Dartifact={artifact}"]
    command += [f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true"]
    problem = ""
    for attempt in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        archives = list(folder.glob("*.tar.gz"))
        if done.returncode == 0 and archives:
            with tarfile.open(archives[0]) as archive:
                archive.extractall(partial, filter="data")
            return
        problem = done.stdout[-300:].strip()
        time.sleep(2**attempt)
    raise BrokerUnavailable(f"apicurio: mvn found no {artifact}: {problem}")


class Apicurio:
    """A registry in memory, on loopback. Stopped and started again, it is empty.

    Attributes:
        url: as `schema_registry` takes it.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}{_API}"

    def start(self) -> None:
        folder = unpacked()
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        command += ["-Dquarkus.log.level=WARN", "-jar", _RUNNER]
        self._process = start_process(command, self._log, cwd=folder)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BrokerUnavailable(f"apicurio ended: {self._log.read_text()[-500:]}")
            try:
                urllib.request.urlopen(f"{self.url}/subjects", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        self.stop()
        raise BrokerUnavailable("apicurio did not answer within 90 s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running(log: Path) -> Iterator[Apicurio]:
    """A registry that runs."""
    registry = Apicurio(log)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def required() -> bool:
    """Whether tests fail without the registry; then the brokers are required, too."""
    return bool(os.environ.get("PROTOFLOW_REQUIRE_BROKERS"))
