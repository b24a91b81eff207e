"""The source of a contract version: a git ref, a directory, or an image."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from protoflow.cli.breaking import git
from protoflow.cli.generate import project, protoc
from protoflow.cli.settings import project_settings
from protoflow.error_codes import OLD_CONTRACT
from protoflow.errors import ConfigError

_GZIP = b"\x1f\x8b"


class Source(NamedTuple):
    """A version of a contract.

    Attributes:
        name: its name for people.
        image: the descriptors of its files.
        shown: the paths of its files, by their names in protoc.
        settings: the text of its file of settings; None if it has none.
    """

    name: str
    image: FileDescriptorSet
    shown: Callable[[str], str]
    settings: str | None = None


def working_directory() -> Source:
    """Returns the .proto files that `generate` would take. Raises ConfigError."""
    return _of_project(Path.cwd(), "the new contract", "", None)


def source(against: str, config_file: str | None) -> Source:
    """Returns the version that a ref, a directory or a file names.

    Args:
        against: the name.
        config_file: the file of settings, if another than that of the project.

    Raises:
        ConfigError: the version does not exist, or protoc reports errors in it.
    """
    place = Path(against)
    if place.is_dir():
        return _of_project(place, against, f"{place.as_posix().rstrip('/')}/", config_file)
    if place.is_file():
        return _of_image(place)
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        directory = git.checkout(against, Path(scratch))
        return _of_project(directory, against, f"{against}:", config_file)


def _of_project(directory: Path, name: str, prefix: str, config_file: str | None) -> Source:
    try:
        found = project.load(directory)
        image = protoc.describe(found, directory)
    except ConfigError as error:
        if directory == Path.cwd():
            raise
        raise ConfigError(f"{name}: {problem}" for problem in error.problems) from None
    roots = {
        file: next(root / file for root in found.roots if (directory / root / file).is_file())
        for file in found.files
    }
    return Source(
        name=name,
        image=image,
        shown=lambda file: f"{prefix}{roots.get(file, Path(file)).as_posix()}",
        settings=_settings(directory, config_file),
    )


def _settings(directory: Path, config_file: str | None) -> str | None:
    """Returns the settings of a version: the same file as now, or that of its project."""
    name = config_file or project_settings(directory).get("config")
    if not name or Path(name).is_absolute() or not (directory / name).is_file():
        return None
    return (directory / name).read_text(encoding="utf-8")


def _of_image(file: Path) -> Source:
    content = file.read_bytes()
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        image = FileDescriptorSet.FromString(content)
    except (DecodeError, OSError, EOFError):
        image = FileDescriptorSet()
    if not image.file:
        raise ConfigError(
            f"{file}: not an image of descriptors; write one with `buf build -o {file.stem}.binpb`"
            f" or `protoc --include_imports --include_source_info -o {file.stem}.binpb`",
            code=OLD_CONTRACT,
        )
    return Source(name=str(file), image=image, shown=lambda name: f"{file}:{name}")
