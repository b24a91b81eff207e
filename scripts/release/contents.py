"""Compares the files in wheel and sdist with those of the repository: all, and nothing else."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Written by the build, into the metadata of the wheel.
_METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
#: Always added to an sdist by hatchling.
_ADDED = {"PKG-INFO", "pyproject.toml", ".gitignore"}


def in_repository() -> set[str]:
    """Returns the files of the repository that git knows or would add."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def wheel_problems(wheel: Path) -> Iterator[str]:
    """Yields the differences between a wheel and what it should hold."""
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    target = _build("wheel")
    wanted = {info + name for name in _METADATA}
    for name in in_repository():
        for folder in target["only-include"]:
            if name.startswith(f"{folder}/"):
                wanted.add(target["sources"].get(folder, folder) + name.removeprefix(folder))
    yield from _differences(wheel.name, wanted, found)


def sdist_problems(sdist: Path) -> Iterator[str]:
    """Yields the differences between an sdist and what it should hold."""
    with tarfile.open(sdist) as archive:
        found = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    parts = tuple(part.removeprefix("/") for part in _build("sdist")["include"])
    wanted = _ADDED | {
        name
        for name in in_repository()
        if any(name == part or name.startswith(f"{part}/") for part in parts)
    }
    yield from _differences(sdist.name, wanted, found)


def files(wheel: Path) -> int:
    """Returns the number of files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return len(archive.namelist())


def _build(target: str) -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, Any] = project["tool"]["hatch"]["build"]["targets"][target]
    return found


def _differences(archive: str, wanted: set[str], found: set[str]) -> Iterator[str]:
    yield from (f"{archive} lacks {name}" for name in sorted(wanted - found))
    yield from (f"{archive} holds {name}" for name in sorted(found - wanted))


def version_problems() -> Iterator[str]:
    """Yields the places that state a version of their own; only `protoflow/__init__.py` may."""
    init = (ROOT / "runtime" / "protoflow" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.+)"$', init, re.M)
    if version is None:
        yield "runtime/protoflow/__init__.py states no __version__"
        return
    stated = re.compile(rf'^\s*(__version__|version)\s*=\s*["\']{re.escape(version[1])}["\']', re.M)
    for name in sorted(in_repository()):
        if name.startswith(("runtime/protoflow/", "protoc_gen_protoflow/", "pyproject.toml")):
            path = ROOT / name
            if path.suffix in (".py", ".toml") and not name.endswith("protoflow/__init__.py"):
                if name.startswith("runtime/protoflow/cli/init/"):
                    continue  # the version of the new project
                if stated.search(path.read_text()):
                    yield f"{name} states the version, which belongs into protoflow/__init__.py"
