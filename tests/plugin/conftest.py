"""What the tests of the generator share: compiled requests, and the plugin in this process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from protoc_gen_protoflow.generate import respond

ROOT = Path(__file__).parent.parent.parent
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"

HEAD = """\
syntax = "proto3";
package shop.v1;
import "google/protobuf/empty.proto";
import "google/protobuf/duration.proto";
import "protoflow/v1/options.proto";
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite expected output")


@dataclass(frozen=True)
class Generated:
    """What the plugin answered."""

    error: str
    files: Mapping[str, str]

    @property
    def errors(self) -> list[str]:
        return self.error.splitlines()

    @property
    def only(self) -> str:
        assert not self.error, self.error
        (text,) = self.files.values()
        return text


Compile = Callable[..., plugin_pb2.CodeGeneratorRequest]
Generate = Callable[..., Generated]


@pytest.fixture(scope="session")
def compile_request(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Turns .proto texts into a request; a single text is `orders.proto` after the usual head."""

    def compiled(
        protos: str | Mapping[str, str], parameter: str = "", wanted: list[str] | None = None
    ) -> plugin_pb2.CodeGeneratorRequest:
        if isinstance(protos, str):
            protos = {"orders.proto": HEAD + textwrap.dedent(protos)}
        directory = tmp_path_factory.mktemp("protos")
        for name, text in protos.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text, encoding="utf-8")
        target = directory / "set.bin"
        status = protoc.main(
            [
                "protoc",
                f"-I{directory}",
                f"-I{ROOT / 'proto'}",
                f"-I{WELL_KNOWN}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={target}",
                *protos,
            ]
        )
        assert status == 0, "protoc refuses the test's .proto"
        files = FileDescriptorSet.FromString(target.read_bytes()).file
        return plugin_pb2.CodeGeneratorRequest(
            file_to_generate=wanted or list(protos), parameter=parameter, proto_file=files
        )

    return compiled


def answer(request: plugin_pb2.CodeGeneratorRequest) -> Generated:
    """Runs the plugin in this process."""
    data = b"".join(respond(request.SerializeToString()))
    response = plugin_pb2.CodeGeneratorResponse.FromString(data)
    return Generated(response.error, {file.name: file.content for file in response.file})


@pytest.fixture(scope="session")
def generate(compile_request: Compile) -> Generate:
    """Compiles .proto texts and runs the plugin on them."""

    def generated(
        protos: str | Mapping[str, str], parameter: str = "", wanted: list[str] | None = None
    ) -> Generated:
        return answer(compile_request(protos, parameter, wanted))

    return generated
