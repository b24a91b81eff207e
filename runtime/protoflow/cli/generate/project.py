"""The input and output of `generate`, from options, pyproject.toml, buf.yaml, or defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from protoflow.cli.settings import project_settings
from protoflow.error_codes import PROJECT
from protoflow.errors import ConfigError

_LIST, _TEXT, _FLAG = "a list of strings", "a string", "true or false"
_KNOWN = {
    "roots": _LIST, "paths": _LIST, "out": _TEXT, "package": _TEXT, "grpc": _FLAG,
    "handlers": _TEXT, "asyncapi": _TEXT,
}  # fmt: skip
_TABLE = "[tool.protoflow.generate]"
#: Contracts import this file, but it is never generated: the runtime contains its module.
_OURS = PurePosixPath("protoflow/v1/options.proto")
_NOT_SOURCES = {"node_modules", "build", "dist", "site-packages", "third_party"}


@dataclass(frozen=True, kw_only=True)
class Project:
    """The input and output of one run of `generate`.

    Attributes:
        roots: directories that imports are relative to.
        files: the .proto files to generate, by their names in protoc.
        out: the output directory.
        package: the name under which Python imports `out`; "" if `out` is on the path itself.
        grpc: whether gRPC stubs are generated, too.
        handlers: the plugin's parameter of that name; "" is its default.
        asyncapi: the plugin's parameter of that name; "" is its default.
        complete: whether these are all files; False if arguments selected some.
    """

    roots: tuple[Path, ...]
    files: tuple[str, ...]
    out: Path
    package: str
    grpc: bool
    handlers: str
    asyncapi: str
    complete: bool


def load(
    directory: Path,
    *,
    paths: Sequence[str] = (),
    roots: Sequence[str] = (),
    out: str | None = None,
    package: str | None = None,
    grpc: bool | None = None,
) -> Project:
    """Returns the project in a directory; arguments have priority over pyproject.toml.

    Raises:
        ConfigError: a setting is invalid, a root or a file does not exist, or there is no file.
    """
    settings = _settings(directory)
    found = [Path(root) for root in roots or settings.get("roots", ())] or _usual_roots(directory)
    for root in found:
        if not (directory / root).is_dir():
            raise ConfigError(
                f"root {root} is not a directory; name an existing one with -I", code=PROJECT
            )
    files = _files(directory, found, paths or settings.get("paths", ()))
    return Project(
        roots=tuple(found),
        files=files,
        out=Path(out or settings.get("out", "gen")),
        package=settings.get("package", "") if package is None else package,
        grpc=bool(settings.get("grpc", False) if grpc is None else grpc),
        handlers=settings.get("handlers", ""),
        asyncapi=settings.get("asyncapi", ""),
        complete=not paths,
    )


def _settings(directory: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = project_settings(directory).get("generate", {})
    problems = []
    for name, value in found.items():
        if name not in _KNOWN:
            problems.append(f"pyproject.toml: {_TABLE} has no {name}; known: {', '.join(_KNOWN)}")
        elif not _fits(value, _KNOWN[name]):
            problems.append(f"pyproject.toml: {_TABLE} {name} is {value!r}; write {_KNOWN[name]}")
    if problems:
        raise ConfigError(problems, code=PROJECT)
    return found


def _fits(value: Any, form: str) -> bool:
    if form == _LIST:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, str if form == _TEXT else bool)


def _usual_roots(directory: Path) -> list[Path]:
    if (directory / "buf.yaml").exists():
        modules = _buf_modules(
            (directory / "buf.yaml").read_text(encoding="utf-8", errors="replace")
        )
        if modules:
            return modules
    return [Path("proto")] if (directory / "proto").is_dir() else [Path()]


def _buf_modules(text: str) -> list[Path]:
    """Returns module paths of a buf.yaml (https://buf.build/docs/configuration/v2/buf-yaml/)."""
    modules = re.split(r"^modules:\s*$", text, maxsplit=1, flags=re.MULTILINE)
    if len(modules) < 2:
        return []
    paths = []
    for line in modules[1].splitlines():
        if line and not line.startswith((" ", "-", "#")):
            break  # the next key of the file begins
        if match := re.match(r"\s*-?\s*path:\s*[\"']?([^\"'#]+?)[\"']?\s*(?:#.*)?$", line):
            paths.append(Path(match[1]))
    return paths


def _files(directory: Path, roots: Sequence[Path], paths: Sequence[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    problems = []
    for path in paths or [str(root) for root in roots]:
        place = directory / path
        if place.is_dir():
            sources = list(files_of(place, (".proto",)))
            if paths and not sources:
                problems.append(f"{path}: the directory contains no .proto file")
        elif place.is_file():
            sources = [place]
        else:
            problems.append(f"{path}: no such file or directory")
            continue
        for source in sources:
            name = _beneath(source, [directory / root for root in roots])
            if name is None:
                shown = ", ".join(map(str, roots))
                problems.append(f"{path} is in none of the roots ({shown}); add one with -I")
                break
            if name == _OURS:
                continue
            names[name.as_posix()] = None
            if (hiding := _first(name, directory, roots)) and not source.samefile(
                directory / hiding
            ):
                shown = os.path.relpath(source, directory)
                problems.append(f"{shown} is hidden by {hiding}: both are {name}; rename one")
    if not names and not problems:
        shown = ", ".join(f"{root}/" for root in roots)
        problems.append(f"no .proto file in {shown}; name files or directories, or a root with -I")
    if problems:
        raise ConfigError(problems, code=PROJECT)
    return tuple(sorted(names))


def _first(name: PurePosixPath, directory: Path, roots: Sequence[Path]) -> Path | None:
    """Returns the file that protoc uses for a name: the file in the first root that has one."""
    return next((root / name for root in roots if (directory / root / name).is_file()), None)


def files_of(place: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """Yields the files below a directory with one of these endings, without those of libraries."""
    for parent, folders, files in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in _NOT_SOURCES
            and not (Path(parent) / name / "pyvenv.cfg").exists()
        )  # fmt: skip
        yield from (Path(parent) / name for name in sorted(files) if name.endswith(endings))


def _beneath(file: Path, roots: Sequence[Path]) -> PurePosixPath | None:
    """Returns the name of a file in protoc: its path relative to the innermost root."""
    # The path as written is tried first, because a link in a root may lead out of it.
    for real in (os.path.abspath, os.path.realpath):
        place = Path(real(file))
        inner = [Path(real(root)) for root in roots if place.is_relative_to(real(root))]
        if inner:
            root = max(inner, key=lambda root: len(root.parts))
            return PurePosixPath(place.relative_to(root).as_posix())
    return None
