"""Where real .proto files come from: distributions on PyPI, npm and Maven, by their names.

Each is fetched once, by the ordinary client of its kind, into a directory that later runs find.
What cannot be had is reported: a test of it is skipped with the reason, or fails where
PROTOFLOW_REQUIRE_SOURCES is set, as in an environment that has all three clients and registries.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"


class UnavailableError(Exception):
    """A distribution is not available here; the text says why."""


@dataclass(frozen=True)
class Source:
    """One distribution, or a list of them that pip installs side by side.

    Attributes:
        name: what it is called among the tests.
        fetch: puts the files below a directory.
        wanted: what must change for them to be fetched again.
        root: the directory below that one that imports count from.
        is_short: whether the short form of the tests takes it.
    """

    name: str
    fetch: Callable[[Path], None]
    wanted: str
    root: str = "."
    is_short: bool = False


def run(*command: str, cwd: Path, timeout: float = 900) -> None:
    """Runs the client of a registry."""
    try:
        result = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]}: {error}") from None
    if result.returncode:
        reported = (result.stderr or result.stdout).strip()[-300:]
        raise UnavailableError(f"{' '.join(command[:3])}: {reported}")


def _by_pip(target: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade")
    run(*pip, "--target", str(target), "-r", str(REQUIREMENTS), cwd=HERE)


def _npm(package: str, root: str = "package", is_short: bool = False) -> Source:
    def fetch(target: Path) -> None:
        run("npm", "pack", "--silent", package, cwd=target)
        for archive in target.glob("*.tgz"):
            with tarfile.open(archive) as file:
                _take(target, ((m.name, file.extractfile(m)) for m in file if m.isfile()))
            archive.unlink()

    return Source(f"npm:{package}", fetch, package, root, is_short)


def _maven(artifact: str, is_short: bool = False) -> Source:
    def fetch(target: Path) -> None:
        goal = ("mvn", "--quiet", "--batch-mode", "dependency:copy")
        run(*goal, f"-Dartifact={artifact}", f"-DoutputDirectory={target}", cwd=target)
        for archive in target.glob("*.jar"):
            with zipfile.ZipFile(archive) as file:
                _take(target, ((name, file.open(name)) for name in file.namelist()))
            archive.unlink()

    return Source(f"maven:{artifact.rpartition(':')[0]}", fetch, artifact, ".", is_short)


def _take(target: Path, members: Iterator[tuple[str, object]]) -> None:
    """Writes the .proto files of an archive, and nothing else, below a directory."""
    for name, stream in members:
        path = (target / name).resolve()
        if name.endswith(".proto") and path.is_relative_to(target.resolve()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream.read())  # type: ignore[attr-defined]  # both kinds of archive


#: Everything that is tried; the long form of the tests takes all of it.
SOURCES = [
    Source("pypi", _by_pip, REQUIREMENTS.read_text(), is_short=True),
    _npm("google-gax", "package/build/protos", is_short=True),
    _npm("@dapr/dapr", "package/proto"),
    _npm("google-proto-files"),
    _maven("io.opentelemetry.proto:opentelemetry-proto:1.5.0-alpha", is_short=True),
    _maven("io.envoyproxy.controlplane:api:1.0.49"),
    _maven("org.apache.hbase:hbase-protocol-shaded:3.0.0-beta-1"),
    _maven("io.substrait:core:0.89.1"),
    _maven("io.grpc:grpc-services:1.85.1"),
]


def tree(source: Source, cache: Path) -> Path:
    """The directory with the files of a source. Raises `UnavailableError`."""
    target = cache / "".join(char if char.isalnum() else "-" for char in source.name)
    stamp = target / ".wanted"
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test workers one fetches, the others wait
        if not stamp.exists() or stamp.read_text() != source.wanted:
            # Beside it, then renamed: nobody ever sees half of it.
            made = target.with_name(f"{target.name}-{os.getpid()}")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            try:
                source.fetch(made)
                (made / ".wanted").write_text(source.wanted)
                shutil.rmtree(target, ignore_errors=True)
                made.rename(target)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return target / source.root
