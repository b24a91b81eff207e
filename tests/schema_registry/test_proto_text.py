"""Schemas as text: protoc reads them, and gets the descriptor from which they were written."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from protoflow.errors import DecodeError
from protoflow.schema_registry.message_names import message_name
from protoflow.schema_registry.options import SchemaFormat
from protoflow.schema_registry.proto_text import text_of
from protoflow.schema_registry.schema import path_of, schema_of

WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
OURS = Path(__file__).parents[2] / "proto"

PROTO2 = """\
syntax = "proto2";
package old.v1;
import public "google/protobuf/any.proto";
import "google/protobuf/descriptor.proto";
option java_package = "org.\\"old\\"";
option optimize_for = CODE_SIZE;
option (rank) = -3;
extend google.protobuf.FileOptions { optional int32 rank = 50100; }
extend google.protobuf.FieldOptions {
  repeated string tags = 50101;
  optional Note note = 50102;
  optional double weight = 50103;
}
message Note {
  optional string text = 1 [default = "a\\"b\\n\\303\\244"];
  optional bytes data = 2 [default = "\\000\\377x"];
  optional float half = 3 [default = -0.5];
  optional double none = 4 [default = nan];
  optional double much = 5 [default = inf];
  optional Kind kind = 6 [default = TWO];
  optional bool yes = 7 [default = true];
  optional int64 many = 8 [default = -9223372036854775808];
  extensions 100 to 199, 500 to max;
  extend Note { optional string more = 100; }
}
enum Kind { option allow_alias = true; ONE = 1; ALSO = 1; TWO = 2 [deprecated = true];
  reserved 5, 7 to 9, 100 to max; reserved "GONE"; }
message Old {
  option deprecated = true;
  required string id = 1 [(tags) = "x", (tags) = "y", (note) = { text: "z" kind: ONE }];
  repeated int32 packed = 2 [packed = true, (weight) = 1e300];
  optional group Inner = 3 { optional int32 a = 1; message Deep { } }
  oneof choice { string text = 4; Old old = 5; group Side = 6 { optional int32 b = 1; } }
  map<string, Old> olds = 7;
  optional string named = 8 [json_name = "other"];
  message Nested { optional Old.Nested again = 1; optional .old.v1.Kind kind = 2; }
  reserved 10, 20 to 29, 1000 to max;
  reserved "x", "y";
}
"""
EDITION = """\
edition = "2023";
package new.v1;
option features.field_presence = IMPLICIT;
message New {
  int32 a = 1 [features.field_presence = EXPLICIT];
  New inner = 2 [features.message_encoding = DELIMITED];
  repeated int32 loose = 3 [features.repeated_field_encoding = EXPANDED];
  reserved x, y;
}
enum Open { OPEN_ZERO = 0; reserved GONE; }
"""


def compiled(name: str, text: str, folder: Path) -> FileDescriptorProto:
    """The descriptor of a text, as protoc makes it."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    target = folder / "set.binpb"
    arguments = ["protoc", f"-I{folder}", f"-I{WELL_KNOWN}", f"-I{OURS}"]
    assert protoc.main([*arguments, f"--descriptor_set_out={target}", name]) == 0, text
    return FileDescriptorSet.FromString(target.read_bytes()).file[0]


def comparable(file: FileDescriptorProto) -> FileDescriptorProto:
    """A copy without what the text does not keep: services, and where map entries and groups are
    among nested messages. JSON names that protobuf derives are left out."""
    file = FileDescriptorProto.FromString(file.SerializeToString(deterministic=True))
    file.ClearField("service")
    _without_names(file.extension)
    _sorted(file)
    return file


def _without_names(fields: Sequence[FieldDescriptorProto]) -> None:
    for field in fields:
        first, *rest = field.name.split("_")
        if field.extendee or field.json_name == first + "".join(
            part[:1].upper() + part[1:] for part in rest
        ):
            field.ClearField("json_name")


def _sorted(one: Any) -> None:
    is_file = isinstance(one, FileDescriptorProto)
    messages: Any = one.message_type if is_file else one.nested_type
    fields = list(one.extension) + ([] if is_file else list(one.field))
    groups = {
        field.type_name.rpartition(".")[2]
        for field in fields
        if field.type == FieldDescriptorProto.TYPE_GROUP
    }
    _without_names(fields)
    if not is_file:
        one.field.sort(key=lambda field: field.number)  # members of a oneof are together
    for message in messages:
        _sorted(message)
    order = sorted(messages, key=lambda m: (not m.options.map_entry, m.name not in groups))
    del messages[:]
    messages.extend(order)


def assert_same(file: FileDescriptorProto, folder: Path) -> str:
    text = text_of(file)
    again = compiled(file.name, text, folder)
    assert comparable(again) == comparable(file), text
    assert text_of(again) == text, "the text is canonical"
    return text


@pytest.mark.parametrize(("name", "text"), [("old.proto", PROTO2), ("new.proto", EDITION)])
def test_every_construct_is_written(name: str, text: str, tmp_path: Path) -> None:
    file = compiled(name, text, tmp_path)
    options = compiled(name, text, tmp_path)
    if name == "old.proto":  # the options are known once the file is loaded, as in a program
        importlib.import_module("google.protobuf.any_pb2")
        pool: Any = descriptor_pool.Default()
        pool.AddSerializedFile(file.SerializeToString())
        options = FileDescriptorProto.FromString(file.SerializeToString())
    written = assert_same(options, tmp_path)
    if name == "old.proto":
        assert 'required string id = 1 [(old.v1.tags) = "x", (old.v1.tags) = "y", ' in written
        assert "reserved 10, 20 to 29, 1000 to max;" in written
        assert "option (old.v1.rank) = -3;" in written
    else:
        assert "int32 a = 1 [features = { field_presence: EXPLICIT }];" in written
        assert "reserved x, y;" in written


@pytest.mark.parametrize(
    "name", ["descriptor", "struct", "type", "api", "compiler.plugin", "wrappers"]
)
def test_files_of_protobuf_are_written(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"google.protobuf.{name}_pb2")
    file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    assert_same(file, tmp_path)


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,3})?", fullmatch=True)
SCALARS = [
    FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_SINT64, FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FIXED32,
]  # fmt: skip


@st.composite
def messages(draw: Any, name: str, around: str, depth: int = 0) -> Any:
    """A message of proto3 with fields, oneofs, maps, enums, nested messages and reservations."""
    full = f"{around}.{name}"
    message: Any = DescriptorProto(name=name)
    names = draw(
        st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda one: one.replace("_", ""))
    )
    oneof = draw(st.booleans())
    if oneof:
        message.oneof_decl.add(name="chosen")
    presences = []
    for number, field_name in enumerate(names, 1):
        field = message.field.add(name=f"f_{field_name}", number=number, label=1)
        kind = draw(st.sampled_from(["scalar", "repeated", "optional", "map", "self", "oneof"]))
        field.type = draw(st.sampled_from(SCALARS))
        if kind == "repeated":
            field.label = FieldDescriptorProto.LABEL_REPEATED
        elif kind == "optional":
            field.proto3_optional = True
            presences.append(field)
        elif kind == "self" or (kind == "oneof" and not oneof):
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, full
        elif kind == "oneof":
            field.oneof_index = 0
        elif kind == "map":
            parts = (part[:1].upper() + part[1:] for part in field.name.split("_"))
            entry = f"{''.join(parts)}Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            nested.field.add(name="key", number=1, type=9, label=1)
            nested.field.add(name="value", number=2, type=field.type, label=1)
            field.type, field.label = FieldDescriptorProto.TYPE_MESSAGE, 3
            field.type_name = f"{full}.{entry}"
        if draw(st.booleans()):
            field.options.deprecated = True
    if oneof and not any(field.HasField("oneof_index") for field in message.field):
        message.field.add(name="only", number=90, type=9, label=1, oneof_index=0)
    for field in presences:  # after real oneofs, as protoc places them
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")
    if draw(st.booleans()):
        message.reserved_range.add(start=100, end=draw(st.integers(101, 200)))
        message.reserved_name.append("gone")
    if draw(st.booleans()):
        enum = message.enum_type.add(name="Kind")
        for number in range(draw(st.integers(1, 3))):
            enum.value.add(name=f"KIND_{name.upper()}_{number}", number=number)
    if depth < 2:
        for index in range(draw(st.integers(0, 2))):
            message.nested_type.append(draw(messages(f"Inner{index}", full, depth + 1)))
    return message


@st.composite
def files(draw: Any) -> FileDescriptorProto:
    file = FileDescriptorProto(name="any.proto", syntax="proto3")
    if draw(st.booleans()):
        file.package = "some.v1"
    around = f".{file.package}" if file.package else ""
    for index in range(draw(st.integers(1, 3))):
        file.message_type.append(draw(messages(f"Top{index}", around)))
    return file


# Without shrinking, which would take minutes of protoc.
@settings(
    max_examples=25, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(files())
def test_any_file_is_written_and_its_messages_are_found(
    tmp_path: Path, file: FileDescriptorProto
) -> None:
    text = assert_same(file, tmp_path)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: Any = pool.FindFileByName(file.name)
    waiting = list(found.message_types_by_name.values())
    for format, schema in (
        (SchemaFormat.TEXT, text),
        (SchemaFormat.SERIALIZED, base64.b64encode(file.SerializeToString()).decode()),
    ):
        for message in waiting:
            waiting += [one for one in message.nested_types if one not in waiting
                        and not one.GetOptions().map_entry]  # fmt: skip
            assert message_name(schema, path_of(message, format)) == message.full_name


def test_names_are_found_in_texts_of_others() -> None:
    text = """
    // message Comment {}
    syntax = "proto3"; /* message Comment { */ package a.b ;
    option (x) = { message: "message Text {" inner { a: 1 } };
    enum Kind { message = 0; }
    message First { string package = 1; message message = 2; oneof o { int32 a = 3; }
      message Inner { } extend Other { int32 b = 4; } message Last { message Deep {} } }
    service S { rpc M(First) returns (First) { option (y) = { message: 'x' }; } }
    message Second {}
    """
    assert message_name(text, (0,)) == "a.b.First"
    assert message_name(text, (0, 1, 0)) == "a.b.First.Last.Deep"
    assert message_name(text, (1,)) == "a.b.Second"
    with pytest.raises(DecodeError, match="the schema has no message 2"):
        message_name(text, (2,))
    with pytest.raises(DecodeError, match="the schema has no message 0"):
        message_name("{}} no schema", (0,))


def test_services_and_annotations_are_no_part_of_a_schema(pb2: Any) -> None:
    schema = schema_of(pb2.DESCRIPTOR, SchemaFormat.TEXT)
    assert [one.name for one in schema.imports] == ["registry/v1/common.proto"]
    assert "protoflow" not in schema.text
    assert "service" not in schema.text
    assert schema.text.startswith(
        'syntax = "proto3";\npackage registry.v1;\nimport "registry/v1/common.proto";\n'
        "message OrderPlaced {\n  string order_id = 1;\n  optional .registry.v1.Money total = 2;\n"
        "  map<string, int32> counts = 3;\n"
    )
    serialized = schema_of(pb2.DESCRIPTOR, SchemaFormat.SERIALIZED)
    file = FileDescriptorProto.FromString(base64.b64decode(serialized.text))
    assert text_of(file) == schema.text
    common = schema_of(schema.imports[0], SchemaFormat.TEXT)
    assert common.imports == (), "every registry has the files of Google"
    assert 'import "google/protobuf/timestamp.proto";' in common.text


def test_an_option_with_the_name_message_is_no_message() -> None:
    text = "package a; option (message) = { b: 1 }; message First { option (message) = {}; }"
    assert message_name(text, (0,)) == "a.First"
