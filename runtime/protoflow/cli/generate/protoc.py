"""Runs protoc of grpcio-tools with the plugin that is installed beside this Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from protoflow.cli.generate import validate_proto
from protoflow.cli.generate.project import Project
from protoflow.error_codes import PROTOC
from protoflow.errors import ConfigError, MissingExtraError

_PLUGIN = "protoc-gen-protoflow"
#: The text that protoc writes before errors of a plugin, and the log lines of its libraries.
_WARNING = re.compile(r"WARNING: All log messages|[IW]\d{4} ")
_PREFIX = re.compile(r"^--protoflow_out: (?:protoc-gen-protoflow: )?", re.MULTILINE)


def versions() -> str:
    """Returns the versions of protoc and the plugin as text. Raises MissingExtraError."""
    from importlib import metadata

    try:
        protoc = metadata.version("grpcio-tools")
    except metadata.PackageNotFoundError:
        raise MissingExtraError("codegen", "grpcio-tools") from None
    return f"protoc of grpcio-tools {protoc}, {_PLUGIN} {metadata.version(_PLUGIN)}"


def run(project: Project, directory: Path, out: Path) -> None:
    """Generates the modules of a project into `out`.

    Raises:
        MissingExtraError: the extra `codegen` or `validate` is missing.
        ConfigError: the errors of protoc and the plugin, one line each.
    """
    versions()
    plugin = [
        f"--plugin={_PLUGIN}={_plugin()}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--protoflow_out={out}",
    ]
    if project.package:
        plugin.append(f"--protoflow_opt=import_prefix={project.package}")
    plugin += [
        f"--protoflow_opt={name}={value}"
        for name in ("handlers", "asyncapi")
        if (value := getattr(project, name))
    ]
    if project.grpc:
        plugin.append(f"--grpc_python_out={out}")
    _compile(project, directory, plugin, rules=(validate_proto.NAME,))


def describe(project: Project, directory: Path) -> FileDescriptorSet:
    """Returns the descriptors of a project with its imports and all source positions.

    Raises:
        MissingExtraError: the extra `codegen` or `validate` is missing.
        ConfigError: the errors of protoc, one line each.
    """
    versions()
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        image = Path(scratch) / "image.binpb"
        _compile(
            project,
            directory,
            [f"--descriptor_set_out={image}", "--include_imports", "--include_source_info"],
        )
        return FileDescriptorSet.FromString(image.read_bytes())


def _compile(
    project: Project, directory: Path, outputs: Sequence[str], rules: Sequence[str] = ()
) -> None:
    """Runs protoc on a project; `rules` are also compiled if a file imports them."""
    from protoc_gen_protoflow import resources

    files = list(project.files)
    arguments = [f"-I{root}" for root in project.roots]
    arguments.append(f"-I{resources.include()}")
    with tempfile.TemporaryDirectory(prefix="protoflow-") as scratch:
        if validate_proto.is_imported(files, [directory / root for root in project.roots]):
            arguments.append(f"--descriptor_set_in={_validate(Path(scratch))}")
            files += rules
        _call([*arguments, *outputs, *files], project, directory)


def _validate(scratch: Path) -> Path:
    descriptors = validate_proto.descriptors()
    if descriptors is None:
        raise MissingExtraError("validate", "protovalidate")
    file = scratch / "validate.binpb"
    file.write_bytes(descriptors.SerializeToString())
    return file


def _call(arguments: Sequence[str], project: Project, directory: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments]
    done = subprocess.run(  # noqa: S603  no shell is used, only this interpreter
        command, cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    lines = [
        _with_root(line, project, directory)
        for line in _PREFIX.sub("", done.stderr).splitlines()
        if line.strip() and not _WARNING.match(line)
    ]
    raise ConfigError(lines or [f"protoc ended with {done.returncode}"], code=PROTOC)


def _with_root(line: str, project: Project, directory: Path) -> str:
    """Returns an error with the file's path from the working directory.

    The plugin only knows the path from the root.
    """
    name = line.partition(":")[0]
    for root in project.roots:
        if root.parts and name in project.files and (directory / root / name).is_file():
            return f"{root.as_posix()}/{line}"
    return line


def _plugin() -> str:
    """Returns the plugin's script beside this Python; one on PATH may have another version."""
    for folder in (Path(sys.executable).parent, Path(sys.prefix) / "bin"):
        for name in (_PLUGIN, f"{_PLUGIN}.exe"):
            if os.access(folder / name, os.X_OK):
                return str(folder / name)
    raise ConfigError(
        f"{_PLUGIN} is not installed beside {sys.executable}; install it there", code=PROTOC
    )
