"""Finds paths of files whose modules cannot be imported."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from protoflow.error_codes import PYTHON_NAME

from protoc_gen_protoflow import names
from protoc_gen_protoflow.imports import python_module
from protoc_gen_protoflow.parameters import Parameters
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import FILE_DEPENDENCIES, File, Location


def check(file: File, used: Iterable[File], parameters: Parameters, problems: Problems) -> None:
    """Reports problems of the module paths that a module needs.

    Args:
        file: the file of the module.
        used: the files whose messages it names.
        parameters: the plugin's parameters, which may move modules.
        problems: collects the errors.
    """
    for other in {file.name: file, **{needed.name: needed for needed in used}}.values():
        place = file.place if other is file else _import(file, other)
        # The suffix makes a keyword valid, but an empty name stays empty.
        is_empty = not other.module.rpartition(".")[2]
        segment = "" if is_empty else names.bad_module_segment(f"{other.module}_pb2")
        if segment is not None:
            shown = f"{segment.removesuffix('_pb2')!r} in the path of {other.name}"
            problems.add(
                place,
                f"{shown} {_wrong(segment)}, so that Python cannot import its modules; rename "
                "the file or directory",
                PYTHON_NAME,
            )
        elif hider := _hider(other, python_module(other.name, parameters)):
            directory = other.name.rpartition("/")[0]
            problems.add(
                place,
                f"{directory}/ is hidden in Python by {hider}, so that its modules cannot be "
                "imported; rename the directory, or move its modules into a package with "
                f"--protoflow_opt=import_map={directory}/=PACKAGE",
                PYTHON_NAME,
            )


def _wrong(segment: str) -> str:
    if names.is_keyword(segment):
        return "is a keyword of Python"
    if segment.isidentifier():
        return "is not in the Unicode normal form (NFKC) to which Python converts names"
    return "is not a Python name"


def _hider(file: File, module: str) -> str | None:
    """Returns the name of the module that hides a module, such as an installed package."""
    top, dot, _ = module.partition(".")
    if not dot:
        return None
    if top == "protoflow":
        return "the runtime's package"
    is_protobufs = file.package == "google.protobuf" or file.package.startswith("google.protobuf.")
    if module.startswith("google.protobuf.") and not is_protobufs:
        return "the package of protobuf"
    return f"the module {top} of the standard library" if top in sys.stdlib_module_names else None


def _import(file: File, other: File) -> Location:
    """Returns the import statement that includes a file; or the file, without one."""
    for index, path in enumerate(file.proto.dependency):
        if path == other.name:
            return file.place.at(FILE_DEPENDENCIES, index)
    return file.place
