"""The generated files: compares the output of a run with the output directory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from protoflow.cli.generate import packages, protoc
from protoflow.cli.generate.project import Project, files_of

_DOCUMENTS = (".asyncapi.yaml", ".asyncapi.json")
_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_protoflow.py", *_DOCUMENTS)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The differences between the output directory and the output of the current contract.

    Attributes:
        changed: files to write, with their content, by path beneath the output directory.
        orphans: generated modules without a .proto file; empty if only some files are generated.
        unchanged: the number of files that are up to date.
    """

    changed: dict[str, str]
    orphans: list[str]
    unchanged: int


def difference(project: Project, directory: Path) -> Difference:
    """Generates into a separate directory, and compares. Raises as `protoc.run` does."""
    made = _generated(project, directory)
    out = directory / project.out
    changed = {name: text for name, text in made.items() if _content(out / name) != text}
    there = (
        {file.relative_to(out).as_posix() for file in files_of(out, _SUFFIXES)}
        if project.complete
        else set()
    )
    return Difference(
        changed=changed, orphans=sorted(there - made.keys()), unchanged=len(made) - len(changed)
    )


def write(found: Difference, out: Path) -> None:
    """Writes changed files. Each is replaced atomically, so no reader sees a half-written file."""
    for name, text in found.changed.items():
        file = out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(file)


def _generated(project: Project, directory: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        out = Path(scratch)
        protoc.run(project, directory, out)
        files = {
            file.relative_to(out).as_posix(): file.read_text(encoding="utf-8")
            for file in sorted(out.rglob("*"))
            if file.is_file()
        }
    modules = {_module(name) for name in files}
    made = {
        name: text
        if name.endswith(_DOCUMENTS)
        else packages.rewrite(text, project.package if "_protoflow." not in name else "", modules)
        for name, text in files.items()
    }
    if project.package:
        for name in _missing_inits(made, directory / project.out):
            made[name] = ""
    return made


def _module(name: str) -> str:
    return name.rpartition(".")[0].replace("/", ".")


def _missing_inits(made: dict[str, str], out: Path) -> list[str]:
    folders = {parent for name in made for parent in Path(name).parents}
    return sorted(
        (folder / "__init__.py").as_posix()
        for folder in folders
        if not (out / folder / "__init__.py").exists()
    )


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
