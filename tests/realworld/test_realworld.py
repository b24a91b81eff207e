"""Every .proto that a dozen public distributions hold, as they are and annotated throughout.

They are installed once, into pytest's cache; without a package index the tests are skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc
from protoflow.v1 import options_pb2

from protoc_gen_protoflow.generate import respond

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
BIN = Path(sys.executable).parent
EMPTY = ".google.protobuf.Empty"
# What may be wrong with names that were never meant for Python: nothing but these.
EXPECTED = re.compile(
    r"^(?P<file>[^:]+):(\d+:\d+:)? (?P<name>[\w.]+): (becomes \w+ in Python, as [\w.]+ does; .*"
    r"|\w+ is a keyword of Python, which no module can name; rename the message"
    r"|'\w+' in the path of \S+ is (a keyword of|no) Python.*"
    r"|dead_letter.topic, \S+ filled in, has \d+ characters; use at most 200)$"
)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def tree(request: pytest.FixtureRequest) -> Path:
    """The installed distributions."""
    cache = request.config.cache
    assert cache is not None
    requirements = HERE / "requirements.txt"
    target = Path(cache.mkdir("protoflow-realworld")) / "site"
    stamp = target / "requirements.txt"
    with target.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test workers one installs, the others wait
        if not stamp.exists() or stamp.read_text() != requirements.read_text():
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade")
            # Beside it, then renamed: nobody ever sees half of it.
            made = target.with_name(f"site-{os.getpid()}")
            result = run(*pip, "--target", str(made), "-r", str(requirements), cwd=HERE)
            if result.returncode:
                pytest.skip(f"the distributions cannot be installed: {result.stderr[-300:]}")
            (made / "requirements.txt").write_text(requirements.read_text())
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    return target


@pytest.fixture(scope="session")
def files(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """The descriptors of all files, dependencies first."""
    directory = tmp_path_factory.mktemp("realworld")
    paths = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.proto"))]
    arguments = ["--include_imports", "--include_source_info", "--descriptor_set_out=x.bin"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tree}", f"-I{WELL_KNOWN}"]
    result = run(*command, *arguments, *paths, cwd=directory)
    assert result.returncode == 0, result.stderr
    result = run(
        *(sys.executable, str(HERE / "collect.py"), str(tree), "x.bin", "all.bin"), cwd=directory
    )
    assert result.returncode == 0, result.stderr
    found = FileDescriptorSet.FromString((directory / "all.bin").read_bytes()).file
    assert len(found) > 500
    return list(found)


def answer(files: list[FileDescriptorProto], wanted: list[str]) -> CodeGeneratorResponse:
    request = CodeGeneratorRequest(
        file_to_generate=wanted, proto_file=files, parameter="handlers=both"
    )
    return CodeGeneratorResponse.FromString(b"".join(respond(request.SerializeToString())))


def test_what_is_not_annotated_gives_nothing(files: list[FileDescriptorProto]) -> None:
    response = answer(files, [file.name for file in files])
    assert not response.error
    assert not response.file


def annotate(file: FileDescriptorProto, left_out: set[str]) -> None:
    """Gives topics to all messages of a file and consumers to all of its rpcs."""
    prefix = f"{file.package}." if file.package else ""
    for message in file.message_type:
        annotate_message(message, prefix, left_out)
    for service in file.service:
        for index, method in enumerate(service.method):
            name = f"{prefix}{service.name}.{method.name}"
            if {name, f"{prefix}{service.name}", *both(method)} & left_out:
                continue
            consume = method.options.Extensions[options_pb2.consume]
            consume.topic = f"{service.name}.{method.name}"[-60:].lstrip(".")
            consume.consumer_group = f"{file.package[-60:].strip(chr(46))}-{index}"
            if method.output_type != EMPTY:
                topic = f"{method.output_type[1:]}"[-100:].lstrip(".")
                method.options.Extensions[options_pb2.publish].topic = topic


def both(method: MethodDescriptorProto) -> list[str]:
    return [method.input_type[1:], method.output_type[1:]]


def annotate_message(message: DescriptorProto, prefix: str, left_out: set[str]) -> None:
    name = prefix + message.name
    if message.options.map_entry:
        return
    if name not in left_out:
        options = message.options.Extensions[options_pb2.message]
        options.topic = name[-100:].lstrip(".")
        text = [
            field
            for field in message.field
            if field.type == FieldDescriptorProto.TYPE_STRING
            and field.label != FieldDescriptorProto.LABEL_REPEATED
        ]
        if text:
            text[0].options.Extensions[options_pb2.field].partition_key = True
            text[-1].options.Extensions[options_pb2.field].sensitive = True
    for inner in message.nested_type:
        annotate_message(inner, f"{name}.", left_out)


@pytest.fixture(scope="session")
def generated(
    files: list[FileDescriptorProto], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The modules made for all files, beside their `_pb2` modules and stubs; their names."""
    # What lies in google/protobuf and in our own package cannot have modules beside it.
    own = ("google/protobuf/", "protoflow/", "mypy_protobuf/")
    wanted = [file.name for file in files if not file.name.startswith(own)]
    left_out: set[str] = set()
    for _ in range(5):
        request = [FileDescriptorProto.FromString(file.SerializeToString()) for file in files]
        for file in request:
            if file.name in wanted:
                annotate(file, left_out)
        response = answer(request, wanted)
        if not response.error:
            break
        for line in response.error.splitlines():
            told = EXPECTED.match(line)
            assert told, line
            left_out.add(told["name"])
            if "in the path of" in line:
                wanted.remove(told["file"])
    assert not response.error
    assert len(response.file) > 500
    out = tmp_path_factory.mktemp("gen")
    for made in response.file:
        path = out / made.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made.content)
    (out / "all.bin").write_bytes(FileDescriptorSet(file=files).SerializeToString())
    result = run(
        *(sys.executable, "-m", "grpc_tools.protoc", "--descriptor_set_in=all.bin"),
        *("--python_out=.", f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}"),
        *("--mypy_out=quiet:.", *wanted),
        cwd=out,
    )
    assert result.returncode == 0, result.stderr
    return out, sorted(made.name.removesuffix(".py").replace("/", ".") for made in response.file)


def test_what_is_annotated_can_be_imported(generated: tuple[Path, list[str]]) -> None:
    out, names = generated
    (out / "names.json").write_text(json.dumps(names))
    code = (
        "import importlib, json, sys, google\n"
        "sys.path.insert(0, '.')\n"
        "google.__path__.append('google')\n"
        "for name in json.load(open('names.json')):\n"
        "    spec = importlib.import_module(name).__protoflow_spec__\n"
        "    assert spec.producers, name\n"
    )
    result = run(sys.executable, "-c", code, cwd=out)
    assert result.returncode == 0, result.stderr


def test_what_is_annotated_is_as_black_leaves_it(generated: tuple[Path, list[str]]) -> None:
    out, names = generated
    files = [name.replace(".", "/") + ".py" for name in names]
    command = (sys.executable, "-m", "black", "--check", "--diff", "--quiet")
    # Black is slow: a tenth of them, the longest lines first.
    files.sort(key=lambda name: -max(map(len, (out / name).read_text().splitlines())))
    result = run(*command, *files[: len(files) // 10], cwd=out)
    assert result.returncode == 0, result.stdout[:3000] + result.stderr


@pytest.mark.timeout(600)
def test_what_is_annotated_passes_mypy_strict(generated: tuple[Path, list[str]]) -> None:
    out, names = generated
    (out / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nnamespace_packages = true\nmypy_path = {ROOT / 'runtime'}\n"
        "explicit_package_bases = true\n[mypy-*_pb2]\nignore_errors = true\n"
    )
    arguments = [argument for name in names for argument in ("-m", name)]
    result = run(*(sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *arguments), cwd=out)
    assert result.returncode == 0, result.stdout[-3000:]
