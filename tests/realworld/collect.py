"""Gathers the descriptors of all that an installed tree holds: `collect.py TREE PROTOC_SET OUT`.

Runs in a process of its own, for it imports hundreds of `_pb2` modules. Files that the
tree has as .proto come from PROTOC_SET, with their comments; the rest from the modules.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet


def main() -> None:
    tree, compiled, out = map(Path, sys.argv[1:])
    # The packages of the tree, `google` among them, are looked for beside the installed ones.
    sys.path.insert(0, str(tree))
    google = importlib.import_module("google")
    google.__path__.append(str(tree / "google"))
    found: dict[str, FileDescriptorProto] = {}

    def add(descriptor: FileDescriptor) -> None:
        if descriptor.name not in found:
            for dependency in descriptor.dependencies:
                add(dependency)
            proto = FileDescriptorProto()
            descriptor.CopyToProto(proto)
            found[descriptor.name] = proto

    refused = 0
    for path in sorted(tree.rglob("*_pb2.py")):
        name = str(path.relative_to(tree).with_suffix("")).replace("/", ".")
        try:
            add(importlib.import_module(name).DESCRIPTOR)
        except Exception as error:  # made by a protoc too old, or needs what is not there
            print(f"{name}: {error!r}", file=sys.stderr)
            refused += 1
    for proto in FileDescriptorSet.FromString(compiled.read_bytes()).file:
        found[proto.name] = proto
    ordered: dict[str, FileDescriptorProto] = {}

    def order(name: str) -> None:
        if name not in ordered:
            for dependency in found[name].dependency:
                order(dependency)
            ordered[name] = found[name]

    # A few files come twice under two names; the one that others import is kept.
    imported = {name for proto in found.values() for name in proto.dependency}
    taken: set[str] = set()
    for name in sorted(found, key=lambda name: name not in imported):
        proto = found[name]
        symbols = {f"{proto.package}.{message.name}" for message in proto.message_type}
        if not symbols & taken:
            taken |= symbols
            order(name)
    out.write_bytes(FileDescriptorSet(file=ordered.values()).SerializeToString())
    print(f"{len(ordered)} files, {refused} modules refused")


if __name__ == "__main__":
    main()
