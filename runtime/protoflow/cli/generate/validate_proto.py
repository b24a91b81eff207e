"""Provides `buf/validate/validate.proto` from the installed protovalidate.

The wheel of protovalidate contains the descriptor of this file, but neither the .proto file nor a
`_pb2` module for this library. So contracts that import the file get its descriptor, and the `_pb2`
module is generated into the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

NAME = "buf/validate/validate.proto"
_IMPORT = re.compile(r'^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"', re.MULTILINE)


def is_imported(files: Iterable[str], roots: Sequence[Path]) -> bool:
    """Returns whether validate.proto is imported, also indirectly, and missing in all roots."""
    if any((root / NAME).exists() for root in roots):
        return False
    seen: set[str] = set()
    waiting = list(files)
    while waiting:
        name = waiting.pop()
        if name == NAME:
            return True
        source = next((root / name for root in roots if (root / name).is_file()), None)
        if name in seen or source is None:
            continue
        seen.add(name)
        waiting += _IMPORT.findall(source.read_text(encoding="utf-8", errors="replace"))
    return False


def descriptors() -> FileDescriptorSet | None:
    """Returns the file and its imports; None if protovalidate is not installed."""
    try:
        # The module is private: a test in tests/cli checks that it exists.
        from protovalidate._gen.buf.validate import validate_pb
    except ImportError:
        return None
    found = FileDescriptorSet()
    _add(validate_pb.desc(), found, set())
    return found


def _add(description: object, found: FileDescriptorSet, seen: set[str]) -> None:
    proto = FileDescriptorProto.FromString(description.proto.to_binary())  # type: ignore[attr-defined]  # of protobuf-py
    if proto.name in seen:
        return
    seen.add(proto.name)
    for dependency in description.dependencies:  # type: ignore[attr-defined]  # of protobuf-py
        _add(dependency, found, seen)
    found.file.append(proto)
