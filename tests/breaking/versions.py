"""Versions of a contract, compiled in this process without generated modules."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from protoflow.breaking.change import Change
from protoflow.breaking.compare import RETENTION, compare
from protoflow.breaking.contract import Contract
from protoflow.cli.breaking.contracts import contract
from protoflow.cli.breaking.sources import Source
from protoflow.cli.breaking.specs import Descriptors
from protoflow.config import Config
from protoflow.contract.spec import FileSpec

from protoc_gen_protoflow import resources

HEADER = 'syntax = "proto3";\npackage shop.v1;\nimport "protoflow/v1/options.proto";\n'
HEADER += 'import "google/protobuf/empty.proto";\n'


@functools.cache
def image(text: str) -> bytes:
    """The descriptors of one file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.proto").write_text(HEADER + text)
        out = Path(folder, "image.binpb")
        arguments = [
            "protoc", f"-I{folder}", f"-I{resources.include()}", f"-I{_google()}",
            f"--descriptor_set_out={out}", "--include_imports", "--include_source_info",
            "shop.proto",
        ]  # fmt: skip
        assert protoc.main(arguments) == 0, text
        return out.read_bytes()


def _google() -> str:
    return str(Path(protoc.__file__).parent / "_proto")


class Version(NamedTuple):
    """A contract under settings, and the specifications to run it with."""

    name: str
    contract: Contract
    files: tuple[FileSpec, ...]
    config: Config


def version(name: str, text: str, config: Config) -> Version:
    """Reads a version as the command does."""
    descriptors = FileDescriptorSet.FromString(image(text))
    source = Source(name=name, image=descriptors, shown=lambda file: file)
    files = tuple(Descriptors(descriptors).files())
    return Version(name, contract(source, config), files, config)


def changes(
    old: str, new: str, transport: str = "memory://", retention: float = RETENTION
) -> list[Change]:
    """The changes between two texts on a transport."""
    config = Config(transport=transport, environ={})
    return compare(
        version("old", old, config).contract,
        version("new", new, config).contract,
        config.url.scheme,
        retention,
    )
