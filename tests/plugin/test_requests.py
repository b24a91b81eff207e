"""Requests that neither protoc nor buf would make: an answer, never a traceback or foreign code."""

from __future__ import annotations

import ast
import io
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protoflow.v1 import options_pb2

from protoc_gen_protoflow.__main__ import main

from .conftest import ROOT, Compile, Generated

EVIL = 'x") or __import__("os").system("touch PWNED") or ("y'
OPTIONS = "protoflow/v1/options.proto"


def run(data: bytes) -> Generated | str:
    """The plugin's answer, or what it complains of on stderr."""
    out, complaints = io.BytesIO(), io.StringIO()
    status = main([], io.BytesIO(data), out, complaints)
    if status:
        assert complaints.getvalue().startswith("stdin holds no CodeGeneratorRequest")
        return complaints.getvalue()
    assert not complaints.getvalue()
    response = plugin_pb2.CodeGeneratorResponse.FromString(out.getvalue())
    made = Generated(response.error, {file.name: file.content for file in response.file})
    assert bool(made.error) + bool(made.files) <= 1
    for line in made.errors:
        assert line.isprintable()
    for name, text in made.files.items():
        harmless(name, text)
    return made


def harmless(name: str, text: str) -> None:
    """Whether a module is Python that holds nothing but what templates put there."""
    assert name.endswith("_protoflow.py")
    assert not name.startswith("/")
    assert ".." not in name
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called.startswith("_pf."), called
    kinds = (ast.ImportFrom, ast.Import, ast.Expr, ast.Assign, ast.AnnAssign, ast.ClassDef)
    assert {type(node) for node in tree.body} <= set(kinds)


def request(**fields: str) -> plugin_pb2.CodeGeneratorRequest:
    """A request by hand, its parts called as the arguments say."""
    value = {"file": "shop/a.proto", "package": "shop", "message": "Order", "service": "Orders"}
    value |= {"rpc": "Place", "field": "id", "topic": "t", "group": "g", "comment": "", **fields}
    made = plugin_pb2.CodeGeneratorRequest(parameter=value.get("parameter", ""))
    made.file_to_generate.append(value["file"])
    empty = made.proto_file.add(name="google/protobuf/empty.proto", package="google.protobuf")
    empty.message_type.add(name="Empty")
    made.proto_file.add(name=OPTIONS, package="protoflow.v1")
    file = made.proto_file.add(name=value["file"], package=value["package"], syntax="proto3")
    file.dependency.extend([OPTIONS, empty.name])
    message = file.message_type.add(name=value["message"])
    field = message.field.add(name=value["field"], number=1, type=9, label=1)
    field.options.Extensions[options_pb2.field].partition_key = True
    field.options.Extensions[options_pb2.field].sensitive = True
    options = message.options.Extensions[options_pb2.message]
    options.topic = value["topic"]
    for name in ("type", "source", "data_schema"):
        if name in value:
            setattr(options, name, value[name])
    if "alias" in value:
        options.aliases.append(value["alias"])
    service = file.service.add(name=value["service"])
    service.options.Extensions[options_pb2.service].consumer_group = value["group"]
    method = service.method.add(name=value["rpc"], output_type=".google.protobuf.Empty")
    method.input_type = "." + ".".join(filter(None, (value["package"], value["message"])))
    method.options.Extensions[options_pb2.consume].SetInParent()
    for path in ([4, 0], [6, 0], [6, 0, 2, 0]):
        location = file.source_code_info.location.add(path=path, span=[1, 1, 1])
        location.leading_comments = value["comment"]
    return made


def answer(made: plugin_pb2.CodeGeneratorRequest) -> Generated:
    found = run(made.SerializeToString())
    assert isinstance(found, Generated)
    return found


PARTS = ["file", "package", "message", "service", "rpc", "field", "topic", "group", "comment"]
PARTS += ["type", "source", "data_schema", "alias", "parameter"]
TEXTS = {
    "code": EVIL,
    "lines": 'x"\nimport os\nos.system("touch PWNED")\n"',
    "triple": '"""\nimport os\nos.system("touch PWNED")\n"""',
    "backslash": "\\",
    "template": "{{ 7*7 }}{% x %}",
    "quotes": "a\"b'c",
    "bidi": "a\u202e\u2066b",
    "nul": "a\0b",
    "separators": "a\u2028import os\x0cb\x85c",
    "dots": "../../../tmp/x.proto",
    "absolute": "/etc/x.proto",
    "keyword": "class",
    "homoglyph": "\u043erder",
    "empty": "",
    "digits": "1",
    "dotted": "a.b",
    "long": "x" * 100_000,
    "percent": "%s %(x)s {0}",
}


def test_the_request_by_hand_is_a_good_one() -> None:
    made = answer(request())
    assert list(made.files) == ["shop/a_protoflow.py"], made.error


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("part", PARTS)
def test_no_text_becomes_code(part: str, text: str) -> None:
    answer(request(**{part: TEXTS[text]}))


NO_NAMES = itertools.product(
    ["file", "package", "message", "service", "rpc"],
    ["code", "lines", "quotes", "nul", "empty", "digits", "dotted"],
)
# A package may be nothing or have segments, and so may a file; a message in one is found.
NAMES = {("package", "empty"), ("package", "dotted"), ("file", "dotted"), ("message", "dotted")}


@pytest.mark.parametrize(("part", "text"), sorted({*NO_NAMES} - NAMES))
def test_names_that_no_proto_can_hold_are_refused(part: str, text: str) -> None:
    made = answer(request(**{part: TEXTS[text]}))
    assert made.error
    assert not made.files


def test_names_that_are_no_text_are_refused() -> None:
    for part in ("package", "message", "service", "rpc", "file"):
        data = request(**{part: "Zzzz"}).SerializeToString().replace(b"Zzzz", b"Zz\xffz")
        made = run(data)
        assert isinstance(made, Generated)
        assert made.error, part


def test_comments_that_are_no_utf8_are_shown_as_far_as_they_can_be() -> None:
    data = request(comment="Gr..e").SerializeToString().replace(b"Gr..e", b"Gr\xfc\xdfe")
    made = run(data)
    assert isinstance(made, Generated)
    assert "Gr\ufffd\ufffde" in made.only


def test_options_that_are_no_utf8_are_reported() -> None:
    data = request(source="Gr..e").SerializeToString().replace(b"Gr..e", b"Gr\xfc\xdfe")
    assert "an option holds text that is not UTF-8; save the .proto as UTF-8" in str(run(data))


def edited(edit: Callable[[plugin_pb2.CodeGeneratorRequest, FileDescriptorProto], Any]) -> Any:
    made = request()
    edit(made, made.proto_file[2])
    return made


def put(target: Any, name: str, value: object) -> Any:
    """`setattr` as an expression."""
    setattr(target, name, value)
    return target


def _nested(message: DescriptorProto, depth: int) -> None:
    for number in range(depth):
        message = message.nested_type.add(name=f"N{number}")
    message.options.Extensions[options_pb2.message].topic = "deep"


BROKEN = {
    "no such file": (
        lambda r, f: r.file_to_generate.append("nope.proto"),
        "'nope.proto' must be generated, but the request lacks it",
    ),
    "no such input": (
        lambda r, f: put(f.service[0].method[0], "input_type", ".no.Such"),
        "shop.Orders.Place: names no.Such, which neither this file nor its imports declare",
    ),
    "no input": (
        lambda r, f: f.service[0].method[0].ClearField("input_type"),
        "shop.Orders.Place: names no message, which",
    ),
    "no such output": (
        lambda r, f: (
            put(f.service[0].method[0], "output_type", ".no.Such"),
            f.service[0].method[0].options.Extensions[options_pb2.publish].SetInParent(),
        ),
        "shop.Orders.Place: names no.Such, which neither",
    ),
    "an input that is not imported": (
        lambda r, f: (
            r.proto_file.add(name="x.proto", package="x").message_type.add(name="X"),
            put(f.service[0].method[0], "input_type", ".x.X"),
        ),
        "shop.Orders.Place: names x.X, which neither",
    ),
    "an imported file without a name": (
        lambda r, f: (
            r.proto_file.add(package="x").message_type.add(name="X"),
            f.dependency.append(""),
            put(f.service[0].method[0], "input_type", ".x.X"),
            f.service[0]
            .method[0]
            .options.Extensions[options_pb2.consume]
            .__setattr__("topic", "x"),
        ),
        "in the path of",
    ),
    "deep": (lambda r, f: _nested(f.message_type[0], 80), ""),
    "a public import that is none": (lambda r, f: f.public_dependency.append(7), ""),
    "a public import of an import that is none": (
        lambda r, f: r.proto_file[1].public_dependency.append(-1),
        "",
    ),
    "imports in a circle": (
        lambda r, f: (
            r.proto_file[1].dependency.append(f.name),
            r.proto_file[1].public_dependency.append(0),
        ),
        "",
    ),
    "a span without an end": (
        lambda r, f: (
            f.source_code_info.location.add(path=[4, 0, 7], span=[1]),
            f.source_code_info.location.add(path=[4, 0, 7], span=[]),
            put(f.message_type[0].options.Extensions[options_pb2.message], "topic", "?"),
        ),
        "shop/a.proto:2:2: shop.Order: topic is '?'",
    ),
    "a map without fields": (
        lambda r, f: (
            put(f.message_type[0].nested_type.add(name="E").options, "map_entry", True),
            f.message_type[0].field.add(name="m", type=11, label=3, type_name=".shop.Order.E"),
        ),
        "",
    ),
    "a field of no type": (lambda r, f: f.message_type[0].field[0].ClearField("type"), "of type"),
    "nothing": (lambda r, f: r.Clear(), ""),
    "messages alike": (lambda r, f: f.message_type.add().CopyFrom(f.message_type[0]), ""),
    "files alike": (lambda r, f: r.proto_file.add().CopyFrom(f), ""),
    "wanted twice": (lambda r, f: r.file_to_generate.append(f.name), ""),
    "a dependency that is no text": (lambda r, f: f.dependency.append("q\ufffd"), ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_reported(case: str) -> None:
    edit, reported = BROKEN[case]
    made = answer(edited(edit))
    if reported:
        assert any(reported in line for line in made.errors), made.error
    else:
        assert not made.error


def test_deeper_than_protobuf_reads_is_reported() -> None:
    made = request()
    _nested(made.proto_file[2].message_type[0], 150)
    complaint = str(run(made.SerializeToString()))
    assert "nests messages too deeply; nest less than 90 of them" in complaint


def test_large_requests_take_no_time() -> None:
    """Nothing grows faster than the request."""
    made = request()
    file = made.proto_file[2]
    for number in range(800):
        method = file.service[0].method.add(
            name=f"P{number}", input_type=".shop.Order", output_type=".google.protobuf.Empty"
        )
        consume = method.options.Extensions[options_pb2.consume]
        consume.topic = f"t{number}"
        consume.delivery.dead_letter.topic = f"t{number + 1}"
    assert not answer(made).error
    for number in range(800):
        file.service[0].method[number + 1].options.Extensions[options_pb2.consume].topic = "t"
    assert answer(made).error


@pytest.fixture(scope="module")
def seeds(compile_request: Compile) -> list[bytes]:
    """Good requests, to be spoilt."""
    found = [request().SerializeToString(), request(parameter="handlers=both").SerializeToString()]
    for case in ("orders", "names", "editions"):
        root = ROOT / "tests" / "golden" / case / "proto"
        protos = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.proto")}
        found.append(compile_request(protos).SerializeToString())
    return found


def spoilt(data: bytes, source: random.Random) -> bytes:
    """A request in which some bytes are others, are missing or come twice."""
    spoiled = bytearray(data)
    for _ in range(source.randint(1, 6)):
        start = source.randrange(len(spoiled) or 1)
        size = source.choice((1, 1, 1, 2, 4, 16))
        match source.randrange(5):
            case 0:
                spoiled[start : start + 1] = bytes([source.randrange(256)])
            case 1:
                spoiled[start : start + size] = b""
            case 2:
                spoiled[start:start] = source.randbytes(size)
            case 3:
                spoiled[start:start] = spoiled[start : start + 4 * size]
            case _:
                spoiled[start : start + 1] = bytes([spoiled[start] ^ 1 << source.randrange(8)])
    return bytes(spoiled)


@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 2**32))
def test_spoilt_requests(seeds: list[bytes], seed: int) -> None:
    source = random.Random(seed)
    run(spoilt(source.choice(seeds), source))


WORDS = [
    *(text for name, text in TEXTS.items() if name != "long"),
    ".shop.Order",
    "shop.Order",
    "Order",
    "a.b",
    "_x",
    "DESCRIPTOR",
    OPTIONS,
]


def shuffle(message: Any, source: random.Random, depth: int = 0) -> None:
    """Sets a field somewhere in a message to something, or clears or repeats it."""
    fields = message.DESCRIPTOR.fields
    field = source.choice(fields)
    inner = [(found, value) for found, value in message.ListFields() if found.message_type]
    if inner and source.random() < 0.8 - depth / 10:
        found, value = source.choice(inner)
        if found.is_extension:
            shuffle(value, source, depth + 1)
        elif found.is_repeated:
            shuffle(source.choice(value), source, depth + 1)
        else:
            shuffle(value, source, depth + 1)
        return
    if source.random() < 0.3:
        message.ClearField(field.name)
        return
    value = something(field, source)
    if field.message_type is not None:
        target = getattr(message, field.name)
        if field.is_repeated:
            target.add()
            if len(target) > 1:
                target[-1].CopyFrom(target[0])
        else:
            target.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def something(field: Any, source: random.Random) -> Any:
    if field.enum_type is not None:
        return source.choice(field.enum_type.values).number
    if field.type == field.TYPE_STRING:
        return source.choice(WORDS)
    if field.type == field.TYPE_BYTES:
        return source.randbytes(4)
    if field.type == field.TYPE_BOOL:
        return source.random() < 0.5
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return source.choice([0.0, -1.0, 1e300, float("nan"), float("inf")])
    small = [0, 1, 2, 7, 1000]
    is_unsigned = field.type in (field.TYPE_UINT32, field.TYPE_UINT64, field.TYPE_FIXED32)
    return source.choice(small if is_unsigned else [*small, -1, -(2**31)])


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 2**32))
def test_requests_with_anything_anywhere(seeds: list[bytes], seed: int) -> None:
    source = random.Random(seed)
    made = plugin_pb2.CodeGeneratorRequest.FromString(source.choice(seeds))
    for _ in range(source.randint(1, 8)):
        shuffle(made, source)
    run(made.SerializePartialToString())
