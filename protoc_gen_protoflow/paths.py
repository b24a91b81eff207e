"""Paths of files whose modules no import statement can reach."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from protoc_gen_protoflow import names
from protoc_gen_protoflow.imports import python_module
from protoc_gen_protoflow.parameters import Parameters
from protoc_gen_protoflow.problems import Place, Problems
from protoc_gen_protoflow.request import FILE_DEPENDENCIES, File


def check(file: File, used: Iterable[File], parameters: Parameters, problems: Problems) -> None:
    """Notes what is wrong with the paths of the modules that a module needs.

    Args:
        file: the file that the module is for.
        used: the files with messages that it names.
        parameters: the plugin's, which move modules.
        problems: takes the notes.
    """
    for other in {file.name: file, **{needed.name: needed for needed in used}}.values():
        place = file.place if other is file else _import(file, other)
        # A keyword is none any more with its suffix; nothing would still be nothing.
        is_empty = not other.module.rpartition(".")[2]
        segment = "" if is_empty else names.bad_module_segment(f"{other.module}_pb2")
        if segment is not None:
            problems.add(
                place,
                f"{segment!r} in the path of {other.module.replace('.', '/')} {_wrong(segment)}, "
                "so that no module there can be imported; rename the file or directory",
            )
        elif hider := _hider(python_module(other.name, parameters), other is file):
            directory = other.name.partition("/")[0]
            problems.add(
                place,
                f"{directory}/ is hidden in Python by {hider}, so that no module of {other.name} "
                "can be imported; move it to another directory, or its modules into a package: "
                f"--protoflow_opt=import_map={directory}/=PACKAGE",
            )


def _wrong(segment: str) -> str:
    if names.is_keyword(segment):
        return "is a keyword of Python"
    if segment.isidentifier():
        return "is not in the Unicode normal form (NFKC) that Python turns names into"
    return "is no Python name"


def _hider(module: str, is_generated: bool) -> str | None:
    """What hides a module: a directory cannot share its name with an installed package."""
    top, dot, _ = module.partition(".")
    if not dot:
        return None
    if top == "protoflow":
        is_options = module == "protoflow.v1.options_pb2" and not is_generated
        return None if is_options else "the runtime's package"
    if is_generated and module.startswith("google.protobuf."):
        return "the package of protobuf"
    return f"the module {top} of the standard library" if top in sys.stdlib_module_names else None


def _import(file: File, other: File) -> Place:
    """The import statement by which a file comes to another, or the file."""
    for index, path in enumerate(file.proto.dependency):
        if path == other.name:
            return file.place.at(FILE_DEPENDENCIES, index)
    return file.place
