"""Every .proto of public distributions, from PyPI, npm and Maven: as it is, and annotated.

The short form takes three of them; PROTOFLOW_REALWORLD=long takes all, and every file by itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from google.protobuf.message import Message
from grpc_tools import protoc
from protoflow.v1 import options_pb2

from protoc_gen_protoflow.generate import respond

from .sources import SOURCES, Source, UnavailableError, tree

#: A source is compiled and generated once, for all.
pytestmark = pytest.mark.xdist_group("realworld")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
BIN = Path(sys.executable).parent
IS_LONG = os.environ.get("PROTOFLOW_REALWORLD") == "long"
IS_STRICT = bool(os.environ.get("PROTOFLOW_REQUIRE_SOURCES"))
CHOSEN = [source for source in SOURCES if IS_LONG or source.is_short]
# Black and mypy are slow: in the short form one source says enough.
CHECKED = CHOSEN if IS_LONG else CHOSEN[:1]
EMPTY = ".google.protobuf.Empty"
OPTIONS = "protoflow/v1/options.proto"
# What lies there cannot have modules beside it: the packages are installed.
INSTALLED = ("google/protobuf/", "protoflow/", "mypy_protobuf/")
# What may be wrong with names that were never meant for Python: nothing but these.
EXPECTED = re.compile(
    r"^(?P<file>[^:]+):(\d+:\d+:)? (?P<name>[\w.]+): (becomes \w+ in Python, as [\w.]+ does; .*"
    r"|\w+ is a keyword of Python, so no module can import it; rename the message"
    r"|'\w+' in the path of \S+ is (a keyword of|no) Python.*"
    r"|\S+ is hidden in Python by .*"
    r"|the dead-letter topic .* filled in has \d+ characters; use at most 200: .*)$"
)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Group:
    """The files of a source.

    Attributes:
        name: what the source is called.
        files: the descriptors, dependencies first.
        sizes: the size of each file as text, of those that are text.
    """

    name: str
    files: list[FileDescriptorProto]
    sizes: dict[str, int]


@pytest.fixture(scope="session", params=CHOSEN, ids=lambda source: source.name)
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Group:
    """The descriptors of each source, one after the other."""
    source: Source = request.param
    cache = getattr(request.config, "cache", None)
    home = Path(cache.mkdir("protoflow-realworld")) if cache else tmp_path_factory.mktemp("cache")
    try:
        root = tree(source, home)
    except UnavailableError as error:
        # Reported, never passed over in silence.
        (pytest.fail if IS_STRICT else pytest.skip)(f"{source.name} cannot be had: {error}")
    directory = tmp_path_factory.mktemp("realworld")
    compiled(root, directory)
    collected = directory / "x.bin"
    if any(root.rglob("*_pb2.py")):
        script = (sys.executable, str(HERE / "collect.py"), str(root), "x.bin", "all.bin")
        result = run(*script, cwd=directory)
        assert result.returncode == 0, result.stderr
        collected = directory / "all.bin"
    files = list(FileDescriptorSet.FromString(collected.read_bytes()).file)
    sizes = {name: (root / name).stat().st_size for name in protos(root)}
    return Group(source.name, files, sizes)


def protos(root: Path) -> list[str]:
    found = [str(path.relative_to(root)) for path in root.rglob("*.proto")]
    return sorted(name for name in found if not name.startswith(INSTALLED))


def compiled(root: Path, directory: Path) -> None:
    """Compiles what protoc takes; what needs files that are not there is left out."""
    paths = total = protos(root)
    arguments = ["--include_imports", "--include_source_info", "--descriptor_set_out=x.bin"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"-I{WELL_KNOWN}"]
    while paths:
        (directory / "paths.txt").write_text("\n".join(paths))
        result = run(*command, *arguments, "@paths.txt", cwd=directory)
        if not result.returncode:
            break
        reported = re.findall(
            r"^(?!.*: warning: )(?:.*?/)??([^:\s]+):", result.stderr, re.MULTILINE
        )
        refused = {line.removeprefix(f"{root}/") for line in reported}
        refused |= {path for path in paths for line in reported if line.endswith(f"/{path}")}
        left = [path for path in paths if path not in refused]
        assert len(left) < len(paths), result.stderr[-2000:]
        paths = left
    assert len(paths) >= 0.8 * len(total), "most of the files cannot be compiled"
    if not paths:
        (directory / "x.bin").write_bytes(b"")


def answer(
    files: list[FileDescriptorProto], wanted: list[str], parameter: str = ""
) -> CodeGeneratorResponse:
    request = CodeGeneratorRequest(file_to_generate=wanted, parameter=parameter, proto_file=files)
    return CodeGeneratorResponse.FromString(b"".join(respond(request.SerializeToString())))


def test_what_is_not_annotated_gives_nothing(group: Group) -> None:
    assert group.files
    response = answer(group.files, [file.name for file in group.files])
    assert not response.error
    assert not response.file


def annotate(file: FileDescriptorProto, left_out: set[str]) -> None:
    """Gives topics to all messages of a file and consumers to all of its rpcs."""
    if OPTIONS not in file.dependency:
        file.dependency.append(OPTIONS)
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


@dataclass(frozen=True)
class Annotated:
    """The files of a source with annotations throughout.

    Attributes:
        group: the files as they were.
        files: the files as they are now, dependencies first.
        wanted: those that can have modules.
        modules: the text of each module, by the path of its .proto.
    """

    group: Group
    files: list[FileDescriptorProto]
    wanted: list[str]
    modules: dict[str, str]


@pytest.fixture(scope="session")
def annotated(group: Group) -> Annotated:
    """The modules made for all files of a source, without what their names make impossible."""
    wanted = [file.name for file in group.files if not file.name.startswith(INSTALLED)]
    left_out: set[str] = set()
    response = CodeGeneratorResponse()
    files: list[FileDescriptorProto] = []
    for _ in range(8):
        files = [FileDescriptorProto.FromString(file.SerializeToString()) for file in group.files]
        for file in files:
            if file.name in wanted:
                annotate(file, left_out)
        files = with_options(files)
        response = answer(files, wanted)
        if not response.error:
            break
        for line in response.error.splitlines():
            reported = EXPECTED.match(line)
            assert reported, line
            left_out.add(reported["name"])
            if reported["file"] in wanted and ("in the path of" in line or "is hidden in" in line):
                wanted.remove(reported["file"])
    assert not response.error
    return Annotated(group, files, wanted, by_source(response))


def with_options(files: list[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """The files with options.proto before those that import it."""
    options = FileDescriptorProto()
    options_pb2.DESCRIPTOR.CopyToProto(options)
    needed = [*options.dependency, OPTIONS]
    there = {file.name: file for file in files}
    if missing := [name for name in options.dependency if name not in there]:
        there |= {file.name: file for file in installed(missing)}
    there[OPTIONS] = options
    return [there[name] for name in needed] + [file for file in files if file.name not in needed]


def installed(names: list[str]) -> list[FileDescriptorProto]:
    """Files that protobuf itself brings."""
    found: list[FileDescriptorProto] = []
    for name in names:
        proto = FileDescriptorProto()
        options_pb2.DESCRIPTOR.pool.FindFileByName(name).CopyToProto(proto)
        found.append(proto)
    return found


def by_source(response: CodeGeneratorResponse) -> dict[str, str]:
    return {
        file.content.split("\n", 2)[1].removeprefix("# source: "): file.content
        for file in response.file
    }


def test_most_files_have_modules(annotated: Annotated) -> None:
    """What is left out is the exception: a directory that Python hides, a file of enums."""
    reported = {
        file.name
        for file in annotated.group.files
        if file.message_type and not file.name.startswith(INSTALLED)
    }
    assert len(annotated.modules) >= 0.9 * len(reported)


def text_size(file: FileDescriptorProto) -> int:
    """The least size that a .proto with this descriptor can have, comments and options apart."""

    def of_message(message: DescriptorProto) -> int:
        if message.options.map_entry:
            return 0
        fields = sum(len(field.name) + len(field.type_name) + 14 for field in message.field)
        inner = sum(map(of_message, message.nested_type)) + sum(map(of_enum, message.enum_type))
        return 14 + len(message.name) + fields + inner

    def of_enum(enum: EnumDescriptorProto) -> int:
        return 11 + len(enum.name) + sum(len(value.name) + 9 for value in enum.value)

    methods = [method for service in file.service for method in service.method]
    return (
        sum(map(of_message, file.message_type))
        + sum(map(of_enum, file.enum_type))
        + sum(30 + len(method.name) + sum(map(len, both(method))) for method in methods)
        + sum(len(name) + 12 for name in file.dependency)
    )


def annotations_size(file: FileDescriptorProto) -> int:
    """The size of the annotations that a file was given, as brief text."""

    def size(options: Message, name: str) -> int:
        text = text_format.MessageToString(options, as_one_line=True)
        return len(f"    option (protoflow.v1.{name}) = {{{text}}};\n")

    def of_message(message: DescriptorProto) -> int:
        total = sum(map(of_message, message.nested_type))
        if message.options.HasExtension(options_pb2.message):
            total += size(message.options.Extensions[options_pb2.message], "message")
        return total + sum(
            size(field.options.Extensions[options_pb2.field], "field")
            for field in message.field
            if field.options.HasExtension(options_pb2.field)
        )

    extensions: tuple[Any, ...] = (options_pb2.consume, options_pb2.publish)
    return sum(map(of_message, file.message_type)) + sum(
        size(method.options.Extensions[extension], extension.name)
        for service in file.service
        for method in service.method
        for extension in extensions
        if method.options.HasExtension(extension)
    )


def sizes_of(annotated: Annotated) -> dict[str, int]:
    """The size of each annotated .proto; the least it can be where there is no text."""
    sizes = {file.name: text_size(file) for file in annotated.files} | annotated.group.sizes
    return {file.name: sizes[file.name] + annotations_size(file) for file in annotated.files}


def test_modules_are_at_most_four_times_as_large(annotated: Annotated) -> None:
    """Also where every message is an event and every rpc consumes."""
    sizes = sizes_of(annotated)
    assert not {
        name: (len(text), sizes[name])
        for name, text in annotated.modules.items()
        if len(text) > 4 * sizes[name] + 20_000
    }


def test_a_file_by_itself_gives_the_same(annotated: Annotated) -> None:
    files = {file.name: file for file in annotated.files}
    names = sorted(annotated.modules)
    # All are many; these are spread over the whole.
    for name in names if IS_LONG else names[:: max(1, len(names) // 60)]:
        needed, waiting = set[str](), [name]
        while waiting:
            path = waiting.pop()
            if path not in needed:
                needed.add(path)
                waiting += files[path].dependency
        alone = answer([file for file in annotated.files if file.name in needed], [name])
        assert not alone.error
        assert by_source(alone) == {name: annotated.modules[name]}, name


@pytest.fixture(scope="session")
def generated(
    annotated: Annotated, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The modules of a source, of both kinds, beside `_pb2` modules and stubs; their names."""
    response = answer(annotated.files, annotated.wanted, "handlers=both")
    assert not response.error
    out = tmp_path_factory.mktemp("gen")
    for made in response.file:
        path = out / made.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made.content)
    (out / "all.bin").write_bytes(FileDescriptorSet(file=annotated.group.files).SerializeToString())
    named = [file.name for file in annotated.group.files if not file.name.startswith(INSTALLED)]
    (out / "names.txt").write_text("\n".join(named))
    result = run(
        *(sys.executable, "-m", "grpc_tools.protoc", "--descriptor_set_in=all.bin"),
        *("--python_out=.", f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}"),
        *("--mypy_out=quiet:.", "@names.txt"),
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
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", CHECKED, indirect=True, ids=lambda s: s.name, scope="session")
def test_what_is_annotated_is_as_black_leaves_it(generated: tuple[Path, list[str]]) -> None:
    out, names = generated
    files = [name.replace(".", "/") + ".py" for name in names]
    command = (sys.executable, "-m", "black", "--check", "--diff", "--quiet")
    # Black is slow: some of them, the longest lines first.
    files.sort(key=lambda name: -max(map(len, (out / name).read_text().splitlines())))
    some = files[: len(files) // 10 + 5 if IS_LONG else 6]
    result = run(*command, *some, cwd=out)
    assert result.returncode == 0, result.stdout[:3000] + result.stderr


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("group", CHECKED, indirect=True, ids=lambda s: s.name, scope="session")
def test_what_is_annotated_passes_mypy_strict(generated: tuple[Path, list[str]]) -> None:
    out, names = generated
    (out / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nnamespace_packages = true\nmypy_path = {ROOT / 'runtime'}\n"
        "explicit_package_bases = true\n[mypy-*_pb2]\nignore_errors = true\n"
    )
    # The stubs of what is imported are read with it: in the short form a part says enough.
    some = names if IS_LONG else names[:: len(names) // 10 + 1]
    arguments = [argument for name in some for argument in ("-m", name)]
    result = run(*(sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *arguments), cwd=out)
    assert result.returncode == 0, result.stdout[-3000:]
